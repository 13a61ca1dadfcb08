"""Bring a database to the schema of this version: all of it in one transaction, or nothing."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url, text

from cds_db.session import open_engine

SCRIPTS = "cds_db:migrations"
UPGRADE_LOCK = 0x6364735F6462
"""Key of PostgreSQL's advisory lock ("cds_db"): one of several processes upgrades, the others wait."""


def upgrade(url: str) -> None:
    """Create or upgrade the database; safe to call from several processes at once."""
    upgrade_to(url, "head")


def upgrade_to(url: str, version: str) -> None:
    """Bring the database to one version, for tests of the way from an older one."""
    engine = open_engine(url)
    try:
        with engine.begin() as connection:
            _wait_for_turn(connection)
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, version)
    finally:
        engine.dispose()


def current(url: str) -> str | None:
    """Return the version that the database has, or None where it has none. An SQLite file is not created."""
    parsed = make_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database
    if is_file and not Path(str(parsed.database)).exists():
        return None
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def needed() -> str:
    """Return the version that this code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None, "the package ships at least one version"
    return head


def is_current(url: str) -> bool:
    """Return whether the database has the version that this code needs."""
    return current(url) == needed()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", SCRIPTS)
    return config


def _wait_for_turn(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
