"""Which processes of `up` exist and do nothing: their signs of life in the database no longer change.

No clocks of two machines are compared: a sign that stays the same while the database could be read all the
time is a sign of nobody. What was read before the database was away counts for nothing, and where no process
at all could write, the database is to blame: a lock that somebody holds ends nobody.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psutil
import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cds_db.models import Process
from cds_db.processes import FORGOTTEN_AFTER, alive
from cds_db.session import snapshot
from cds_plugin.presence import IDLE_MOST
from cds_plugin.supervisor import Part

LOOK_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""Who lives says hello every second. One on a busy machine, or whose database was restarted, may be late."""
IDLE_SECONDS = IDLE_MOST.total_seconds()
"""Who consumes finds out by itself that it is deaf in half of this time."""

log = structlog.get_logger("watching")


@dataclass(slots=True)
class Unchanged:
    """A value and since when it has been the same, in seconds of a monotonic clock."""

    value: datetime | None
    since: float

    def note(self, value: datetime | None, now: float) -> bool:
        """Note what the value is now; return whether it is another one."""
        changed = value != self.value
        if changed:
            self.value, self.since = value, now
        return changed


@dataclass(slots=True)
class Signs:
    """The signs of life that were read, by process id. Pure."""

    seen: dict[int, Unchanged] = field(default_factory=dict)
    worked: dict[int, Unchanged] = field(default_factory=dict)

    def note(self, rows: Mapping[int, tuple[datetime, datetime | None]], now: float) -> None:
        """Note one reading: process id -> when it was seen and when it worked last."""
        for pid in self.seen.keys() - rows.keys():
            del self.seen[pid], self.worked[pid]
        anybody = len(rows) < 2 or rows.keys() != self.seen.keys()
        for pid, (seen_at, worked_at) in rows.items():
            anybody |= self.seen.setdefault(pid, Unchanged(seen_at, now)).note(seen_at, now)
            self.worked.setdefault(pid, Unchanged(worked_at, now)).note(worked_at, now)
        if not anybody:
            self.forget()

    def forget(self) -> None:
        """Let nothing that was read before count: nobody could say anything meanwhile."""
        self.seen.clear()
        self.worked.clear()

    def silent(self, now: float) -> list[int]:
        """Return the processes that no longer say hello."""
        return [pid for pid, each in self.seen.items() if now - each.since > SILENT_SECONDS]

    def idle(self, now: float) -> list[int]:
        """Return the processes that say hello and do nothing of what they are for."""
        known = ((pid, each) for pid, each in self.worked.items() if each.value is not None)
        return [pid for pid, each in known if now - each.since > IDLE_SECONDS]


class Watcher:
    """Ends the processes of parts that do nothing, while the block runs; the supervisor starts them again."""

    def __init__(self, engine: Engine, parts: Iterable[Part]) -> None:
        self._engine = engine
        self._parts = tuple(parts)
        self._signs = Signs()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watching", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._leaving.set()

    def _watch(self) -> None:
        while not self._leaving.wait(LOOK_SECONDS):
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Read the signs of life once, and end who has none."""
        family = self._family()
        try:
            rows = {each.pid: (each.seen_at, each.worked_at) for each in self._rows() if _is_of(each, family)}
        except SQLAlchemyError:
            self._signs.forget()
            return
        self._signs.note(rows, now)
        for pid in self._signs.silent(now):
            self._end(pid, "says nothing")
        for pid in self._signs.idle(now):
            self._end(family[pid], "does nothing")

    def _rows(self) -> list[Process]:
        host = socket.gethostname()
        with snapshot(self._engine) as session:
            known = alive(session, datetime.now(UTC) - FORGOTTEN_AFTER)
            return sorted((each for each in known if each.host == host), key=lambda each: each.seen_at)

    def _family(self) -> dict[int, int]:
        """Return process id -> that of its part, for every part and its descendants."""
        family: dict[int, int] = {}
        for pid in filter(None, (part.pid for part in self._parts)):
            family[pid] = pid
            with suppress(psutil.NoSuchProcess):
                family |= {each.pid: pid for each in psutil.Process(pid).children(recursive=True)}
        return family

    def _end(self, pid: int, why: str) -> None:
        """Kill a process, and its session where it leads one: who is stopped heeds nothing milder."""
        log.error("process ended", pid=pid, problem=why)
        self._signs.seen.pop(pid, None)
        self._signs.worked.pop(pid, None)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL) if os.getpgid(pid) == pid else os.kill(pid, signal.SIGKILL)


def _is_of(row: Process, family: Mapping[int, int]) -> bool:
    """Return whether one of the family said it, and no earlier process that had its number."""
    if row.pid not in family:
        return False
    with suppress(psutil.NoSuchProcess):
        began: float = psutil.Process(row.pid).create_time()
        return row.seen_at.timestamp() >= began
    return False
