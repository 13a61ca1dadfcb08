"""Bring a database to the schema of this version: all of it in one transaction, or nothing.

A migration only adds, so that the code of the version before goes on beside it. A migration that can't must
begin a new generation: its version starts with another digit (1001 after 0042), and code of the generation
before refuses that schema.
"""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import OperationalError

from cds_db.session import open_engine

SCRIPTS = "cds_db:migrations"
UPGRADE_LOCK = 0x6364735F6462
"""Key of PostgreSQL's advisory lock ("cds_db"): one of several processes upgrades, the others wait."""


LOCK_SECONDS = 1
"""How long the upgrade waits for a table that somebody holds; all others queue behind it meanwhile."""
LOCK_TRIES = 30
LOCK_PAUSE_SECONDS = 0.5
LOCK_NOT_HAD = frozenset({"55P03", "40P01"})
"""PostgreSQL's lock_not_available and deadlock_detected."""
GENERATION_DIGITS = 1


class Schema(StrEnum):
    """What a database has, as this code sees it."""

    MISSING = "missing"
    OLD = "old"
    CURRENT = "current"
    NEWER = "newer"
    """A later version of this generation made it: it has all that this code needs, and more."""
    FOREIGN = "foreign"
    """A later generation made it, or somebody else: this code must not touch it."""


USABLE = frozenset({Schema.CURRENT, Schema.NEWER})


class SchemaForeign(Exception):
    """The database has a schema that this code can't work with: this installation is too old for it."""


class SchemaBusy(Exception):
    """Somebody held a table for so long that the schema could not be changed."""


def upgrade(url: str) -> None:
    """Create or upgrade the database; safe to call from several processes at once, and while others work.

    A newer schema stays as it is. Raises SchemaForeign and SchemaBusy.
    """
    upgrade_to(url, "head")


def upgrade_to(url: str, version: str) -> None:
    """Bring the database to one version, for tests of the way from an older one."""
    for _ in range(LOCK_TRIES):
        try:
            return _try_to_upgrade(url, version)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in LOCK_NOT_HAD:
                raise
        time.sleep(LOCK_PAUSE_SECONDS)
    raise SchemaBusy(f"a table was held for {LOCK_TRIES} tries")


def _try_to_upgrade(url: str, version: str) -> None:
    engine = open_engine(url)
    try:
        with engine.begin() as connection:
            _wait_for_turn(connection)
            found = MigrationContext.configure(connection).get_current_revision()
            if compared(found) is Schema.FOREIGN:
                raise SchemaForeign(found)
            if compared(found) is Schema.NEWER:
                return
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


def versions() -> list[str]:
    """Return every version of the schema that this code can make, oldest first."""
    script = ScriptDirectory.from_config(_config())
    return [each.revision for each in script.walk_revisions()][::-1]


def needed() -> str:
    """Return the version that this code needs, or a newer one of the same generation."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None, "the package ships at least one version"
    return head


def schema(url: str) -> Schema:
    """Return what the database has."""
    return compared(current(url))


def compared(version: str | None) -> Schema:
    """Return what a version is beside the one that this code needs."""
    if version is None:
        return Schema.MISSING
    known = versions()
    if version in known:
        return Schema.CURRENT if version == known[-1] else Schema.OLD
    same_generation = version[:GENERATION_DIGITS] == known[-1][:GENERATION_DIGITS]
    is_later = len(version) == len(known[-1]) and version.isdecimal() and version > known[-1]
    return Schema.NEWER if same_generation and is_later else Schema.FOREIGN


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", SCRIPTS)
    return config


def _wait_for_turn(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
