"""The database as a process opens it: reachable, and of this version's schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from cds_db.migrate import is_current
from cds_db.session import open_engine
from cds_plugin.config import Settings
from cds_plugin.errors import Refused, Unavailable


def open_database(settings: Settings) -> Engine:
    """Return an engine on a database of this version's schema, for a process that lives with its failures.

    Raises Refused for a missing or old schema, Unavailable where nobody answers.
    """
    with database_failures():
        if not is_current(settings.database.url):
            raise Refused(
                "database_not_current",
                "The database is missing or has another version's schema.",
                "Run: cds-plugin db upgrade",
            )
        return open_engine(settings.database.url)


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
    """Turn the failures of the database inside the block into Unavailable."""
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        raise Unavailable("database", _first_line(error), "Start it, or correct database.url.") from error
    except OSError as error:
        raise Unavailable(
            "database", f"{error.strerror}: {error.filename}", "Correct database.url."
        ) from error


def _first_line(error: SQLAlchemyError) -> str:
    """Return what the driver said, without the statement and its parameters."""
    said = str(error.orig) if isinstance(error, DBAPIError) else type(error).__name__
    return (said.strip().splitlines() or [type(error).__name__])[0]
