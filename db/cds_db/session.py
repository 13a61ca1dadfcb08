"""An engine from a URL handed in; transaction() to write, snapshot() to read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.orm import Session

from cds_db.prepared import run_text

SQLITE_BUSY_SECONDS = 30
"""How long a writer waits for another process's write transaction."""
CONNECT_SECONDS = 5
"""A server that does not answer by then is away; the caller tries again later."""
SILENCE = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""A server whose machine is gone says nothing at all: within 30 s its connection is taken for broken. The
kernel by itself waits for a quarter of an hour, on an idle one for two hours. In libpq's names and units."""
POOL_SIZE = 5
DEFERRED = "cds_deferred"
"""Execution option of a connection that only reads: SQLite then takes no write lock."""


def open_engine(url: str) -> Engine:
    """Return an engine for SQLite (WAL, FULL sync) or PostgreSQL; the folder of an SQLite file is made.

    Not to be carried over a fork: every process opens its own.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        connect = {"connect_timeout": CONNECT_SECONDS, "application_name": "cds-plugin", **SILENCE}
        return create_engine(
            parsed, pool_pre_ping=True, pool_size=POOL_SIZE, connect_args=connect, hide_parameters=True
        )
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, connect_args={"timeout": SQLITE_BUSY_SECONDS}, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    connection.text_factory = _text
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _text(stored: bytes) -> str:
    """Return text even where somebody wrote bytes that are none: `verify` must be able to name the row."""
    return stored.decode("utf-8", "surrogateescape")


def _begin_sqlite(connection: Connection) -> None:
    deferred = connection.get_execution_options().get(DEFERRED, False)
    run_text(connection, "BEGIN" if deferred else "BEGIN IMMEDIATE")


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """Yield a session that commits on leaving the block and rolls back on an exception.

    On SQLite it holds the one write lock from its first statement on: keep it short.
    """
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


class Writing:
    """A transaction of one writer: its connection at once, a session once something needs one.

    A session costs as much as all statements of a usual object together.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._session: Session | None = None

    def connection(self) -> Connection:
        """Return the connection, as `Session.connection` does."""
        return self._connection

    @property
    def session(self) -> Session:
        """Return a session within the transaction; `flush` writes what was added to it."""
        if self._session is None:
            self._session = Session(self._connection, expire_on_commit=False)
        return self._session

    def flush(self) -> None:
        """Write what the session has, and end it: the next one reads again."""
        if self._session is not None:
            self._session.commit()  # of its own part: the transaction stays open
            self._session.close()
            self._session = None


@contextmanager
def writing(bind: Engine | Connection) -> Iterator[Writing]:
    """Yield a transaction that commits on leaving the block and rolls back on an exception.

    On SQLite it holds the one write lock: keep it short. A connection may be handed in to be used again.
    """
    with bind.begin() as begun:
        transaction = Writing(begun if isinstance(begun, Connection) else begun.connection)
        yield transaction
        transaction.flush()


@contextmanager
def snapshot(engine: Engine) -> Iterator[Session]:
    """Yield a session that only reads, sees one state of the database throughout, and holds up no writer."""
    if engine.dialect.name == "sqlite":
        reading = engine.execution_options(**{DEFERRED: True})
    else:
        reading = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with Session(reading, expire_on_commit=False) as session, session.begin():
        yield session
