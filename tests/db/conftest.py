"""Every database test runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, text

from cds_db.migrate import upgrade
from cds_db.models import Base
from cds_db.session import open_engine


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a database without any table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'cds.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(scope="session")
def migrated_postgres_url(postgres_server: str) -> str:
    """Return the URL of one PostgreSQL database that went through the migrations; empty it before use."""
    with psycopg.connect(f"postgresql://{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE ward_book")
    url = f"postgresql+psycopg://{postgres_server}/ward_book"
    upgrade(url)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a database of the current schema without any row."""
    if request.param == "postgresql":
        url = str(request.getfixturevalue("migrated_postgres_url"))
        _empty(url)
        return url
    file = tmp_path / "cds.db"
    shutil.copy(request.getfixturevalue("upgraded_database"), file)
    return f"sqlite:///{file}"


def _empty(url: str) -> None:
    opened = open_engine(url)
    with opened.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())
        connection.execute(text("INSERT INTO audit_head VALUES (1, 0, repeat('0', 64), 'epoch')"))
    opened.dispose()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Yield an engine on a database of the current schema."""
    opened = open_engine(database_url)
    yield opened
    opened.dispose()
