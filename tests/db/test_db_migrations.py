"""The migrations make the schema that the code expects, once, and the triggers guard the trail."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from ward_book import note, seal_all, verified

from cds_db.migrate import Schema, current, needed, schema, upgrade, upgrade_to
from cds_db.models import Base, DeliveredObject, Result
from cds_db.session import open_engine, snapshot

REFUSED = "append-only"


def test_an_empty_database_is_brought_to_the_current_schema_and_stays(empty_url: str) -> None:
    assert current(empty_url) is None
    assert schema(empty_url) is Schema.MISSING
    upgrade(empty_url)
    upgrade(empty_url)
    assert current(empty_url) == needed()


def test_asking_for_the_version_makes_no_file(tmp_path: Path) -> None:
    assert current(f"sqlite:///{tmp_path / 'none' / 'cds.db'}") is None
    assert not list(tmp_path.iterdir())


def test_the_migrated_schema_is_the_one_of_the_models(engine: Engine) -> None:
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_results_that_were_delivered_stay_so_when_frames_come(empty_url: str) -> None:
    upgrade_to(empty_url, "0004")
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        for statement in A_DELIVERED_RESULT:
            connection.execute(text(statement))
    engine.dispose()
    upgrade(empty_url)
    engine = open_engine(empty_url)
    with snapshot(engine) as session:
        (result,), (delivered,) = session.query(Result), session.query(DeliveredObject)
        assert (result.frame, result.kind, result.size_bytes) == (1, "sr", 9)
        assert (delivered.sop_instance_uid, delivered.delivery_id) == ("1.2.5", 1)
    with engine.begin() as connection:
        again = A_DELIVERED_RESULT[2].replace("'1.2.5'", "'1.2.6'")
        connection.execute(
            text(again.replace("created_at)", "created_at, frame)").replace(f"{AT})", f"{AT}, 2)"))
        )
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text(again.replace("'1.2.6'", "'1.2.7'")))
    engine.dispose()


AT = "'2026-01-31T12:00:00.000000Z'"
A_DELIVERED_RESULT = (
    f"INSERT INTO studies VALUES ('1.2.3', 'P-1', '', {AT}, NULL)",
    "INSERT INTO revisions (id, study_instance_uid, number, stage, calling_ae, opened_at, last_received_at) "
    f"VALUES (1, '1.2.3', 1, 'complete', 'CAMERA', {AT}, {AT})",
    "INSERT INTO results (sop_instance_uid, sop_class_uid, kind, revision_id, source_sop_instance_uid, path, "
    "sha256, size_bytes, created_at) "
    f"VALUES ('1.2.5', '1.2', 'sr', 1, '1.2.4', 'results/a.dcm', 'ab', 9, {AT})",
    "INSERT INTO deliveries (id, revision_id, destination, state, attempts) "
    "VALUES (1, 1, 'pacs', 'delivered', 1)",
    f"INSERT INTO delivered_objects (delivery_id, sop_instance_uid, delivered_at) VALUES (1, '1.2.5', {AT})",
)


@pytest.mark.slow
def test_three_processes_may_upgrade_one_empty_database(empty_url: str) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as processes:
        list(processes.map(upgrade, [empty_url] * 3))
    assert schema(empty_url) is Schema.CURRENT
    engine = open_engine(empty_url)
    assert verified(engine).intact
    engine.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'nobody'",
        "UPDATE audit SET seq = NULL, hash = NULL WHERE seq = 2",
        "UPDATE audit SET detail = '{}' WHERE seq IS NULL",
        "DELETE FROM audit WHERE seq = 3",
        "DELETE FROM audit WHERE seq IS NULL",
        "INSERT INTO audit (seq, at, event, actor, outcome, detail) "
        "SELECT 9, at, event, actor, outcome, detail FROM audit WHERE seq = 1",
        "DELETE FROM audit_head",
        "UPDATE audit_head SET seq = 1",
        "INSERT INTO audit_head SELECT 2, seq, hash, sealed_at FROM audit_head",
    ],
)
def test_the_trail_can_not_be_rewritten(engine: Engine, statement: str) -> None:
    note(engine, 3)
    seal_all(engine)
    note(engine)
    with pytest.raises(DBAPIError, match=REFUSED), engine.begin() as connection:
        connection.execute(text(statement))
    assert verified(engine).intact


@pytest.mark.parametrize(
    ("backend", "statement"),
    [
        ("postgresql", "TRUNCATE audit"),
        ("postgresql", "TRUNCATE audit_head"),
        (
            "sqlite",
            "INSERT OR REPLACE INTO audit (id, at, event, actor, outcome, detail) "
            "VALUES (1, '2026', 'x', 'x', 'success', '{}')",
        ),
    ],
)
def test_nor_by_the_ways_of_one_engine(engine: Engine, backend: str, statement: str) -> None:
    if engine.dialect.name != backend:
        return
    note(engine, 3)
    seal_all(engine)
    with pytest.raises(DBAPIError, match=REFUSED), engine.begin() as connection:
        connection.execute(text(statement))
