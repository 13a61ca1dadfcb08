"""Transactions of many senders committed together: they wait for one sync instead of one each.

SQLite takes one writer at a time. Whoever comes to write while another commits waits; the next to get its
turn writes for all who wait. Nobody goes on before the commit that holds its rows has returned.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import SQLAlchemyError

from cds_db.session import Writing, writing

log = structlog.get_logger()

TOGETHER = 32
"""Objects of one transaction: with more SQLite's write lock would be held for long."""
FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SQLAlchemyError,
    TypeError,
    ValueError,
)
"""What the work of a neighbour may raise: it is raised again where it belongs."""

Work = Callable[[Writing], None]


@dataclass(slots=True, eq=False)
class _Entry:
    """The rows that one thread wants written, and what became of them."""

    work: Work
    was_tried: bool = False
    is_committed: bool = False


class Commits:
    """Writes for the threads of one process; `turn` keeps other writers of this product out.

    Where the database takes many writers at once (PostgreSQL) each has a transaction of its own.
    """

    def __init__(self, engine: Engine, turn: AbstractContextManager[Any]) -> None:
        self._engine = engine
        self._turn = turn
        self._takes_many = engine.dialect.name != "sqlite"
        self._waiting: deque[_Entry] = deque()
        self._leading = threading.Lock()
        self._kept: Connection | None = None
        """Used by whoever leads: taking one from the pool costs more than the statements."""
        event.listen(engine, "engine_disposed", self._let_go)

    def write(self, work: Work) -> None:
        """Return once what `work` wrote is committed; raise what it raised, and then nothing of it is kept.

        It may be called in another thread, and again in another transaction: it must leave nothing behind
        but rows.
        """
        if self._takes_many:
            self._write([work], self._engine)
            return
        entry = _Entry(work)
        self._waiting.append(entry)
        with self._leading:
            while not entry.was_tried:
                self._lead()
            if not entry.is_committed:
                self._commit([work])

    def _lead(self) -> None:
        """Commit for those who wait, the longest waiting first; where that fails each writes by itself."""
        entries = [self._waiting.popleft() for _ in range(min(len(self._waiting), TOGETHER))]
        for entry in entries:
            entry.was_tried = True
        if len(entries) == 1:
            return
        try:
            self._commit([entry.work for entry in entries])
        except FAULTS as error:
            log.warning("not committed together", objects=len(entries), problem=type(error).__name__)
            return
        for entry in entries:
            entry.is_committed = True

    def _commit(self, works: Sequence[Work]) -> None:
        """Commit on the connection that was kept; one that saw a failure is not kept."""
        connection, self._kept = self._kept or self._engine.connect(), None
        try:
            self._write(works, connection)
            self._kept = connection
        finally:
            if self._kept is None:
                connection.close()

    def _write(self, works: Sequence[Work], bind: Engine | Connection) -> None:
        with self._turn, writing(bind) as transaction:
            for work in works:
                work(transaction)
                transaction.flush()

    def _let_go(self, _engine: Engine) -> None:
        with self._leading:
            if self._kept is not None:
                self._kept.invalidate()
                self._kept.close()
                self._kept = None
