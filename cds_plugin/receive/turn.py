"""Whose turn it is to write: SQLite takes one writer, and waiting in a queue is fairer than its polling.

The threads of a process queue at a lock, and the processes that receive (listeners, web server, pull) at a
file beside the database: SQLite's own waiting sleeps up to 100 ms at a time, so a busy process would starve
the others. A process that dies gives its turn back. Writers that do not queue here (worker, delivery,
sweeper) are let in by SQLite itself.
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Engine

SUFFIX = ".turn"
MEMORY = ":memory:"


class SharedTurn:
    """A lock among the threads of a process and among processes, not to be taken twice by one thread.

    Where the file cannot be opened the threads still queue, and SQLite keeps the processes apart.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.Lock()
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        self._threads.acquire()
        with suppress(OSError):
            fcntl.flock(self._opened(), fcntl.LOCK_EX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._threads.release()

    def __del__(self) -> None:
        """Close the file; there is one such object in a process."""
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _opened(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._descriptor


def turns(engine: Engine) -> AbstractContextManager[Any]:
    """Return the lock that writers hold on SQLite; PostgreSQL takes many writers and needs none."""
    if engine.dialect.name != "sqlite":
        return nullcontext()
    file = engine.url.database
    if not file or file == MEMORY:
        return threading.Lock()
    return SharedTurn(Path(file + SUFFIX))
