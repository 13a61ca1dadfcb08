"""The database as a command uses it: of the right kind, reachable, and of this version's schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from cds_db.migrate import is_current
from cds_db.session import open_engine
from cds_plugin.config import Settings
from cds_plugin.errors import Refused, Unavailable

DRIVERS = frozenset({"sqlite", "sqlite+pysqlite", "postgresql+psycopg"})


@contextmanager
def opened_database(settings: Settings) -> Iterator[Engine]:
    """Yield an engine whose schema is current.

    Raises Refused for a URL of another kind and for an old schema, Unavailable where nobody answers.
    """
    with database_failures(settings):
        if not is_current(settings.database.url):
            raise Refused(
                "database_not_current",
                "The database is missing or has another version's schema.",
                "Run: cds-plugin db upgrade",
            )
        engine = open_engine(settings.database.url)
        try:
            yield engine
        finally:
            engine.dispose()


@contextmanager
def database_failures(settings: Settings) -> Iterator[None]:
    """Turn the failures of the database inside the block into Refused and Unavailable."""
    driver = make_url(settings.database.url).drivername
    if driver not in DRIVERS:
        raise Refused(
            "bad_setting", f"database.url: no such kind {driver!r}", f"Known: {', '.join(sorted(DRIVERS))}."
        )
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
