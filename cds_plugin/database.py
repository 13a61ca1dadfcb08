"""The database as a process opens it: reachable, and of a schema that this version can work with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import assert_never

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from cds_db.migrate import Schema, SchemaBusy, SchemaForeign, compared, current, needed, upgrade
from cds_db.session import open_engine
from cds_plugin.config import Settings
from cds_plugin.errors import Refused, Unavailable

UPGRADE = "Run: cds-plugin db upgrade"
UPDATE = "Update this installation: the database was upgraded by a later version."

RESTORE_MARK = "restore-unfinished"
"""A file in the storage directory from the first change of a restore to its last."""

log = structlog.get_logger()


def open_database(settings: Settings) -> Engine:
    """Return an engine on a database that this version can work with, for who lives with its failures.

    A newer schema of the same generation only has more than is needed: the process works, and logs it.
    Raises Refused for another schema or an unfinished restore, Unavailable where nobody answers.
    """
    check_restored(settings)
    with database_failures():
        version = current(settings.database.url)
    found = compared(version)
    if found is Schema.NEWER:
        log.warning("schema is newer than this version's", found=version, needed=needed())
    elif found is not Schema.CURRENT:
        action = UPDATE if found is Schema.FOREIGN else UPGRADE
        raise Refused("database_not_current", described(found, version), action)
    return open_engine(settings.database.url)


def upgrade_database(settings: Settings) -> None:
    """Create or upgrade the database. Raises Refused and Unavailable as `open_database` does."""
    check_restored(settings)
    with database_failures():
        upgrade(settings.database.url)


def check_restored(settings: Settings) -> None:
    """Raise Refused where a restore was interrupted: files and database are not of one state."""
    mark = settings.storage.directory / RESTORE_MARK
    if mark.exists():
        raise Refused(
            "restore_unfinished",
            "A restore into this installation was interrupted.",
            f"Begin it anew with --replace, or put back by hand what lay here and remove {mark}.",
        )


def described(found: Schema, version: str | None) -> str:
    """Return what there is to say of the schema of a database."""
    own = needed()
    match found:
        case Schema.MISSING:
            return "The database is missing or has no schema."
        case Schema.OLD:
            return f"The database has schema {version}; this version needs {own}."
        case Schema.CURRENT:
            return f"schema {own} is current"
        case Schema.NEWER:
            return f"schema {version} is newer than this version's {own} and works with it"
        case Schema.FOREIGN:
            return f"The database has schema {version}, which this version (schema {own}) does not know."
        case _:
            assert_never(found)


@contextmanager
def opened_database(settings: Settings) -> Iterator[Engine]:
    """Yield `open_database` to a command that ends with it: a failure inside the block is a CdsError too."""
    engine = open_database(settings)
    try:
        with database_failures():
            yield engine
    finally:
        engine.dispose()


@contextmanager
def database_failures() -> Iterator[None]:
    """Turn the failures of the database inside the block into Unavailable, a foreign schema into Refused."""
    try:
        yield
    except SchemaForeign as error:
        message = described(Schema.FOREIGN, str(error))
        raise Refused("database_not_current", message, UPDATE) from error
    except SchemaBusy as error:
        action = "Try again; pg_stat_activity shows who holds a table for long."
        raise Unavailable("database_busy", f"The schema was not changed: {error}.", action) from error
    except (DBAPIError, PoolTimeout) as error:
        raise Unavailable("database", _first_line(error), "Start it, or correct database.url.") from error
    except OSError as error:
        raise Unavailable(
            "database", f"{error.strerror}: {error.filename}", "Correct database.url."
        ) from error


def _first_line(error: SQLAlchemyError) -> str:
    """Return what the driver said of the server; of a statement only the kind, for it may quote a value."""
    said = str(error.orig) if isinstance(error, OperationalError) else type(error).__name__
    return (said.strip().splitlines() or [type(error).__name__])[0]
