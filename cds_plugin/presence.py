"""A sign of life in the database every second, from a thread; start and stop in the audit trail."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cds_db import audit, processes
from cds_db.columns import Json
from cds_db.events import Event
from cds_db.session import transaction
from cds_plugin.notify import ALIVE, notify

log = structlog.get_logger()

HELLO_SECONDS = 1.0
IDLE_MOST = timedelta(seconds=180)
"""Who has taken no message and finished no round for so long does not do what it is for."""


def this_process() -> str:
    """Return the label of this process: what it holds open is let go once it says hello no more."""
    return processes.label(socket.gethostname(), os.getpid())


@contextmanager
def audited_life(engine: Engine, name: str) -> Iterator[None]:
    """While the block runs the part `name` lives: its start and its orderly stop stand in the audit trail."""
    _audit(engine, name, Event.APPLICATION_STARTED)
    yield
    _audit(engine, name, Event.APPLICATION_STOPPED)


def _audit(engine: Engine, name: str, event: Event) -> None:
    where: Mapping[str, Json] = {"host": socket.gethostname(), "pid": os.getpid()}
    with suppress(SQLAlchemyError), transaction(engine) as session:
        audit.append(session, event=event, actor=name, now=datetime.now(UTC), detail=where)


class Presence:
    """While the block runs the process `name` says hello; a database that is away is only logged.

    The first hello is said on entering; `worked` is asked when the process last did what it is for, and where
    that is too long ago systemd hears nothing (WatchdogSec). `turn` is held during every write: where the
    threads of a process queue for the database's one writer, this one queues with them.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        turn: AbstractContextManager[object] | None = None,
        worked: Callable[[], datetime | None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._name = name
        self._turn = turn or nullcontext()
        self._worked = worked
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"{name}-presence", daemon=True)

    def __enter__(self) -> Self:
        self._say_hello()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        self._thread.join()
        with suppress(SQLAlchemyError), self._turn, transaction(self._engine) as session:
            processes.say_goodbye(session, self._name, socket.gethostname(), os.getpid())

    def _keep(self) -> None:
        while not self._leaving.wait(HELLO_SECONDS):
            self._say_hello()

    def _say_hello(self) -> None:
        now, worked_at = datetime.now(UTC), self._worked()
        if worked_at is None or now - worked_at < IDLE_MOST:
            notify(ALIVE)
        try:
            with self._turn, transaction(self._engine) as session:
                processes.say_hello(session, self._name, socket.gethostname(), os.getpid(), now, worked_at)
        except SQLAlchemyError as error:
            log.error("database is away", problem=type(error).__name__)
