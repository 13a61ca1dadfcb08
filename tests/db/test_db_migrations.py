"""The migrations make the schema that the code expects, once, and the triggers guard the trail."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from ward_book import note, seal_all, verified

from cds_db.migrate import current, is_current, needed, upgrade
from cds_db.models import Base
from cds_db.session import open_engine

REFUSED = "append-only"


def test_an_empty_database_is_brought_to_the_current_schema_and_stays(empty_url: str) -> None:
    assert current(empty_url) is None
    assert not is_current(empty_url)
    upgrade(empty_url)
    upgrade(empty_url)
    assert current(empty_url) == needed()


def test_asking_for_the_version_makes_no_file(tmp_path: Path) -> None:
    assert current(f"sqlite:///{tmp_path / 'none' / 'cds.db'}") is None
    assert not list(tmp_path.iterdir())


def test_the_migrated_schema_is_the_one_of_the_models(engine: Engine) -> None:
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


@pytest.mark.slow
def test_three_processes_may_upgrade_one_empty_database(empty_url: str) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as processes:
        list(processes.map(upgrade, [empty_url] * 3))
    assert is_current(empty_url)
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
