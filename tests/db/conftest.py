"""Every database test runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cds_db.migrate import upgrade
from cds_db.session import open_engine


@pytest.fixture(scope="session")
def migrated_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an SQLite file that went through the migrations; copy it."""
    file = tmp_path_factory.mktemp("migrated") / "cds.db"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a database without any table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'cds.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def database_url(empty_url: str, migrated_sqlite_file: Path) -> str:
    """Return the URL of a database of the current schema."""
    if empty_url.startswith("sqlite"):
        shutil.copy(migrated_sqlite_file, empty_url.removeprefix("sqlite:///"))
    else:
        upgrade(empty_url)
    return empty_url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Yield an engine on a database of the current schema."""
    opened = open_engine(database_url)
    yield opened
    opened.dispose()
