"""From every older schema to this one, with rows in it; and older code going on beside a newer schema."""

from __future__ import annotations

import threading
import time
from enum import StrEnum

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from old_schemas import HEAD, Filled, Shape, broken_for_old_code, shape_of, tables_of
from sqlalchemy import create_engine, select, text
from ward_book import seal_all, verified

import cds_db.migrate as migrate
from cds_db.migrate import (
    Schema,
    SchemaBusy,
    SchemaForeign,
    compared,
    current,
    schema,
    upgrade,
    upgrade_to,
    versions,
)
from cds_db.models import Base
from cds_db.session import open_engine, snapshot
from cds_db.stages import (
    AskedState,
    CommitmentState,
    DeliveryState,
    JobKind,
    JobState,
    Origin,
    PulledState,
    PullState,
    Stage,
)

VERSIONS = versions()
OLDER = VERSIONS[:-1]
BEFORE, DURING, LATER, OTHER = (1, 2, 3), (4, 5, 6), (7, 8), 9


@pytest.mark.parametrize("version", VERSIONS)
def test_every_row_goes_up_and_old_code_goes_on(empty_url: str, version: str) -> None:
    """The rows of an older version survive; its statements then work beside rows of this version."""
    upgrade_to(empty_url, version)
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        old = Filled(tables_of(connection))
        old.insert(connection, BEFORE)
        assert old.found(connection) == old.expected()
    seal_all(engine)

    upgrade(empty_url)
    with engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        assert old.found(connection) == old.expected(), "a row was lost or changed by the upgrade"

        old.insert(connection, DURING)
        old.update(connection, position=3, number=OTHER)
        old.delete(connection, position=4)
        assert old.found(connection) == old.expected()
        new = Filled(tables_of(connection), old.rows)
        new.insert(connection, LATER)
        assert old.found(connection).keys() == {name for name in old.tables if name != HEAD}
    seal_all(engine)
    assert verified(engine).intact

    with snapshot(engine) as session:
        for mapper in Base.registry.mappers:
            rows = list(session.scalars(select(mapper.class_)))
            name = mapper.local_table.name
            assert len(rows) == (1 if name == HEAD else len(new.rows[name]))
    engine.dispose()


def test_a_migration_only_adds(empty_url: str) -> None:
    """The rule that lets older code go on: nothing goes away, and nothing new refuses old rows."""
    engine = open_engine(empty_url)
    shapes: list[Shape] = []
    for version in VERSIONS:
        upgrade_to(empty_url, version)
        with engine.connect() as connection:
            shapes.append(shape_of(connection))
    engine.dispose()
    for version, before, after in zip(VERSIONS[1:], shapes, shapes[1:], strict=False):
        assert broken_for_old_code(before, after) == [], f"migration {version} does more than add"


A_BED = (
    "CREATE TABLE bed "
    "(id INTEGER NOT NULL PRIMARY KEY, ward VARCHAR(9) REFERENCES ward (name), UNIQUE (ward))"
)
A_WARD = (
    "CREATE TABLE ward (name VARCHAR(9) NOT NULL PRIMARY KEY, beds INTEGER, head TEXT NOT NULL)",
    A_BED,
    "CREATE INDEX ix_head ON ward (head)",
    "CREATE TRIGGER kept BEFORE DELETE ON ward BEGIN SELECT RAISE(ABORT, 'no'); END",
)


def another_bed(old: str, new: str) -> tuple[str, ...]:
    """Return how a bed is made anew with something replaced."""
    return "DROP TABLE bed", A_BED.replace(old, new)


def told_of(change: tuple[str, ...]) -> list[str]:
    with create_engine("sqlite://").connect() as connection:
        for statement in A_WARD:
            connection.execute(text(statement))
        before = shape_of(connection)
        for statement in change:
            connection.execute(text(statement))
        return broken_for_old_code(before, shape_of(connection))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("DROP TABLE bed",), "table bed is gone"),
        (("ALTER TABLE ward DROP COLUMN beds",), "ward.beds"),
        (("ALTER TABLE ward RENAME COLUMN beds TO places",), "ward.beds"),
        (("CREATE UNIQUE INDEX new ON ward (beds)",), "may refuse rows"),
        (("DROP INDEX ix_head",), "is gone"),
        (("DROP TRIGGER kept",), "trigger kept is gone"),
        (
            ("CREATE TRIGGER new BEFORE INSERT ON bed BEGIN SELECT RAISE(ABORT, 'no'); END",),
            "trigger new may refuse rows",
        ),
        (another_bed("(id", "(age INTEGER NOT NULL, id"), "bed.age: is new and demands"),
        (another_bed("NOT NULL PRIMARY KEY", "NOT NULL, code INTEGER PRIMARY KEY"), "key of bed changed"),
        (another_bed(", UNIQUE", ", CHECK (id > 9), UNIQUE"), "may refuse rows"),
        (another_bed(" REFERENCES ward (name)", ""), "is gone"),
        (another_bed(", UNIQUE (ward)", ""), "is gone"),
        (another_bed("VARCHAR(9)", "VARCHAR(8)"), "bed.ward"),
        (another_bed("id INTEGER", "id BIGINT"), "bed.id"),
    ],
)
def test_the_rule_sees_what_would_break(change: tuple[str, ...], said: str) -> None:
    problems = told_of(change)
    assert any(said in each for each in problems), problems


@pytest.mark.parametrize(
    "change",
    [
        ("CREATE TABLE room (id INTEGER NOT NULL PRIMARY KEY, ward VARCHAR(9) NOT NULL REFERENCES ward)",),
        ("ALTER TABLE ward ADD COLUMN floor INTEGER",),
        ("ALTER TABLE ward ADD COLUMN floor INTEGER NOT NULL DEFAULT 1", "CREATE INDEX new ON ward (floor)"),
        another_bed("UNIQUE (ward)", "side TEXT, UNIQUE (ward, side)"),
    ],
)
def test_the_rule_lets_additions_pass(change: tuple[str, ...]) -> None:
    assert told_of(change) == []


EVER_WRITTEN: dict[type[StrEnum], str] = {
    Stage: "receiving queued analysing delivering complete conflict failed discarded",
    DeliveryState: "pending delivered failed held discarded",
    AskedState: "pending committed failed discarded",
    Origin: "rerun release",
    JobState: "waiting running done dead discarded",
    JobKind: "analysis delivery commitment",
    CommitmentState: "pending reported failed discarded",
    PullState: "running complete incomplete",
    PulledState: "wanted held refused failed",
}
"""The words that older versions put into columns of a few words."""


@pytest.mark.parametrize("words", EVER_WRITTEN, ids=lambda each: each.__name__)
def test_a_word_that_an_older_version_wrote_is_still_understood(words: type[StrEnum]) -> None:
    assert set(EVER_WRITTEN[words].split()) <= {each.value for each in words}


def test_versions_of_one_generation_are_ordered_by_name() -> None:
    assert sorted(VERSIONS) == VERSIONS and all(len(each) == 4 and each.isdecimal() for each in VERSIONS)
    assert compared(VERSIONS[-1]) is Schema.CURRENT
    assert {compared(each) for each in OLDER} == {Schema.OLD}
    assert compared("0999") is Schema.NEWER
    assert {compared(each) for each in ("1001", "abcd", "00070", "")} == {Schema.FOREIGN}
    assert compared(None) is Schema.MISSING


@pytest.mark.parametrize(("version", "seen"), [("0999", Schema.NEWER), ("1001", Schema.FOREIGN)])
def test_a_later_schema_is_never_touched(empty_url: str, version: str, seen: Schema) -> None:
    upgrade(empty_url)
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{version}'"))
    engine.dispose()
    assert schema(empty_url) is seen
    if seen is Schema.FOREIGN:
        with pytest.raises(SchemaForeign, match=version):
            upgrade(empty_url)
    else:
        upgrade(empty_url)
    assert current(empty_url) == version


def test_a_table_that_is_in_use_is_waited_for_without_holding_up_others(postgres_url: str) -> None:
    """Reception goes on while the upgrade waits: it steps back again and again and lets pass who queues."""
    upgrade_to(postgres_url, "0003")
    engine = open_engine(postgres_url)
    upgrading = threading.Thread(target=upgrade, args=(postgres_url,))
    longest = 0.0
    with engine.connect() as reader:
        reader.execute(text("SELECT * FROM revisions"))
        upgrading.start()
        until = time.monotonic() + 2 * migrate.LOCK_SECONDS
        while (began := time.monotonic()) < until:
            with engine.begin() as writer:
                writer.execute(text("UPDATE revisions SET failure = NULL"))
            longest = max(longest, time.monotonic() - began)
        assert upgrading.is_alive()
    upgrading.join()
    assert schema(postgres_url) is Schema.CURRENT
    assert 0.1 < longest < migrate.LOCK_SECONDS + 1
    engine.dispose()


def test_a_table_that_stays_in_use_is_named(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "LOCK_TRIES", 1)
    upgrade_to(postgres_url, "0003")
    engine = open_engine(postgres_url)
    with engine.connect() as reader:
        reader.execute(text("SELECT * FROM revisions"))
        with pytest.raises(SchemaBusy):
            upgrade(postgres_url)
    assert current(postgres_url) == "0003"
    engine.dispose()
