"""The audit trail in a real database: sealed in one order, and every tampering named."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, insert, text
from ward_book import ANSWER, NOW, STUDY, note, seal_all, verified

from cds_db import audit
from cds_db.events import AUDIT_CODE, Event, Outcome
from cds_db.models import AuditEntry
from cds_db.session import snapshot, transaction

LATER = NOW + timedelta(seconds=audit.UNSEALED_GRACE_SECONDS + 1)
MANY = 30_000
"""Held in memory all at once they would take more than is allowed."""
VERIFY_SECONDS = 20.0
"""Measured: 1 to 3 s on two busy cores."""
VERIFY_GROWTH_KIB = 50_000


@contextmanager
def owner_without_triggers(engine: Engine) -> Iterator[Connection]:
    """Yield a connection of somebody who owns the database and switched its triggers off."""
    with engine.connect() as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        else:
            triggers = connection.execute(
                text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            ).scalars()
            for name in triggers.all():
                connection.execute(text(f"DROP TRIGGER {name}"))
        yield connection


def tamper(engine: Engine, *statements: str) -> None:
    with owner_without_triggers(engine) as connection:
        for statement in statements:
            assert connection.execute(text(statement)).rowcount


COLUMNS = "at, event, actor, study_instance_uid, sop_instance_uid, outcome, detail"


@pytest.mark.parametrize(
    ("first_bad", "problem", "statements"),
    [
        (3, "changed", ["UPDATE audit SET actor = 'nobody' WHERE seq = 3"]),
        (3, "changed", ["UPDATE audit SET detail = '{}' WHERE seq = 3"]),
        (3, "changed", ["UPDATE audit SET detail = 'no json' WHERE seq = 3"]),
        (3, "changed", ["UPDATE audit SET outcome = 'serious_failure' WHERE seq = 3"]),
        (3, "changed", ["UPDATE audit SET study_instance_uid = NULL WHERE seq = 3"]),
        (3, "changed", ["UPDATE audit SET hash = 'f' WHERE seq = 3"]),
        (3, "missing", ["DELETE FROM audit WHERE seq = 3"]),
        (1, "missing", ["DELETE FROM audit WHERE seq = 1"]),
        (6, "missing at the end", ["DELETE FROM audit WHERE seq = 6"]),
        (1, "missing", ["DELETE FROM audit"]),
        (3, "missing", ["UPDATE audit SET seq = NULL WHERE seq = 3"]),
        (
            3,
            "re-ordered",
            [
                "UPDATE audit SET seq = 99 WHERE seq = 3",
                "UPDATE audit SET seq = 3 WHERE seq = 4",
                "UPDATE audit SET seq = 4 WHERE seq = 99",
            ],
        ),
        (
            7,
            "changed",
            [
                f"INSERT INTO audit (seq, previous_hash, hash, {COLUMNS}) "
                f"SELECT 7, hash, hash, {COLUMNS} FROM audit WHERE seq = 6"
            ],
        ),
        (6, "head is gone", ["DELETE FROM audit_head"]),
        (6, "another hash", ["UPDATE audit_head SET hash = 'f'"]),
        (1, "head is gone", ["DELETE FROM audit", "DELETE FROM audit_head"]),
    ],
)
def test_tampering_is_named_with_its_first_row(
    engine: Engine, first_bad: int, problem: str, statements: list[str]
) -> None:
    with transaction(engine) as session:
        for number in range(6):
            audit.append(
                session, event=Event.INSTANCE_STORED, actor="A", now=NOW, study_instance_uid=STUDY,
                detail={"number": number},
            )  # fmt: skip
    seal_all(engine)
    assert verified(engine).intact
    tamper(engine, *statements)
    found = verified(engine)
    assert not found.intact
    assert found.first_bad_seq == first_bad
    assert problem in str(found.problem)


def test_bytes_that_are_no_text_are_a_change_not_a_crash(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        return
    note(engine, 3)
    seal_all(engine)
    tamper(engine, "UPDATE audit SET actor = CAST(x'ff00fe' AS TEXT), at = 'yesterday' WHERE seq = 2")
    assert verified(engine).first_bad_seq == 2


def test_a_broken_head_stops_the_sealer(engine: Engine) -> None:
    note(engine, 2)
    seal_all(engine)
    tamper(engine, "DELETE FROM audit WHERE seq = 2")
    note(engine)
    with pytest.raises(audit.ChainBroken, match="row 2, the last row is 1"):
        seal_all(engine)


def test_rows_wait_unsealed_for_a_moment_but_not_for_long(engine: Engine) -> None:
    note(engine, 2)
    seal_all(engine)
    note(engine, 3)
    assert verified(engine).intact
    late = verified(engine, LATER)
    assert (late.intact, late.sealed, late.unsealed, late.first_bad_seq) == (False, 2, 3, 3)
    assert "3 rows are unsealed" in str(late.problem)
    seal_all(engine)
    assert verified(engine, LATER) == audit.Verification(True, 5, 0, None, None, verified(engine).head)


def test_sealing_in_batches_makes_one_dense_chain(engine: Engine) -> None:
    note(engine, 7)
    with transaction(engine) as session:
        assert audit.seal(session, NOW, limit=4) == 4
    with transaction(engine) as session:
        assert audit.seal(session, NOW, limit=4) == 3
        assert audit.seal(session, NOW, limit=4) == 0
    with snapshot(engine) as session:
        rows = list(audit.query(session, audit.AuditFilter()))
    assert [row.seq for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert [row.detail["number"] for row in rows] == list(range(7))
    assert verified(engine).intact


def test_a_transaction_that_commits_late_is_sealed_late(engine: Engine) -> None:
    if engine.dialect.name != "postgresql":
        return
    with transaction(engine) as slow:
        audit.append(slow, event=Event.STUDY_OPENED, actor="slow", now=NOW)
        slow.flush()
        note(engine, 1, "quick")
        seal_all(engine)
        assert verified(engine).sealed == 1
    seal_all(engine)
    with snapshot(engine) as session:
        rows = list(audit.query(session, audit.AuditFilter()))
    assert [(row.seq, row.actor) for row in rows] == [(1, "quick"), (2, "slow")]
    assert rows[0].id > rows[1].id
    assert verified(engine, LATER).intact


def test_the_filter_finds_by_every_field(engine: Engine) -> None:
    def found(**wanted: object) -> list[str]:
        with snapshot(engine) as session:
            return [row.actor for row in audit.query(session, audit.AuditFilter(**wanted))]  # type: ignore[arg-type]

    note(engine, 1, "first")
    with transaction(engine) as session:
        audit.append(
            session, event=Event.PICTURE_ANALYSED, actor="second", now=LATER, study_instance_uid=STUDY,
            outcome=Outcome.MINOR_FAILURE, detail=ANSWER,
        )  # fmt: skip
    seal_all(engine)
    note(engine, 1, "third", LATER + timedelta(seconds=1))
    assert found() == ["first", "second", "third"]
    assert found(since=LATER) == ["second", "third"]
    assert found(until=LATER) == ["first"]
    assert found(study=STUDY) == ["second"]
    assert found(event=Event.APPLICATION_STARTED) == ["first", "third"]
    assert found(actor="third") == ["third"]
    assert found(outcome=Outcome.MINOR_FAILURE) == ["second"]
    assert found(model="dermoscopy_quality_gate") == found(model="ab" * 32) == ["second"]
    assert found(model="quality") == found(model="diagnostic") == found(model="%") == []
    assert found(limit=2) == ["second", "third"]
    assert found(limit=1, until=LATER) == ["first"]


def test_every_event_has_its_code() -> None:
    assert set(AUDIT_CODE) == set(Event)


@pytest.mark.slow
def test_many_rows_are_sealed_and_verified_in_flat_memory(engine: Engine) -> None:
    row = {
        "at": NOW,
        "event": "instance-stored",
        "actor": "A",
        "outcome": "success",
        "study_instance_uid": STUDY,
    }
    for batch in range(MANY // 1000):
        rows = [row | {"detail": ANSWER | {"n": batch * 1000 + n}} for n in range(1000)]
        with transaction(engine) as session:
            session.execute(insert(AuditEntry), rows)
    start = time.perf_counter()
    seal_all(engine)
    sealed = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = verified(engine)
    seconds = time.perf_counter() - sealed
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(
        f"{engine.dialect.name}: sealed {sealed - start:.1f} s, verified {seconds:.1f} s, {growth} KiB more"
    )
    assert (found.intact, found.sealed) == (True, MANY)
    assert seconds < VERIFY_SECONDS
    assert growth < VERIFY_GROWTH_KIB
