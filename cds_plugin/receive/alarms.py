"""What strangers were refused, on its way into the audit trail: counted and summarised, never a flood.

The first refusal of a kind stands in the trail within a second. What follows is counted, and told as one row
a minute. However many addresses take part, only so many rows a minute are written.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from cds_db import audit
from cds_db.columns import Json
from cds_db.events import Event, Outcome

ROWS_PER_MINUTE = 30
"""Audit rows that strangers can cause together: 43,000 a day at worst, some 20 MB."""
KINDS = 256
"""Different (event, address, reason) that are counted apart; the rest is counted together."""
REPEAT = timedelta(minutes=1)
"""A refusal that goes on is told again after this long."""
ELSEWHERE = "several addresses"


@dataclass(frozen=True, slots=True)
class Kind:
    """What is counted together. `reason` must be one of a bounded set, with nothing that the peer wrote.

    `calling_ae` is the AE title that a peer called itself, where it got so far as to say one.
    """

    event: Event
    address: str
    reason: str
    calling_ae: str = ""


@dataclass(frozen=True, slots=True)
class Alarm:
    """`count` refusals of one kind."""

    kind: Kind
    count: int
    first: datetime
    last: datetime

    @property
    def detail(self) -> Mapping[str, Json]:
        """Return what the audit row says."""
        return {
            "peer": self.kind.address,
            **({"calling_ae": self.kind.calling_ae} if self.kind.calling_ae else {}),
            "reason": self.kind.reason,
            "count": self.count,
            "first": self.first.isoformat(),
            "last": self.last.isoformat(),
        }


class Alarms:
    """The refusals of one process; safe to use from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Kind, Alarm] = {}
        self._told: dict[Kind, datetime] = {}
        self._rows: list[datetime] = []

    def note(self, event: Event, address: str, reason: str, now: datetime, calling_ae: str = "") -> None:
        """Count one refusal."""
        with self._lock:
            self._add(Alarm(Kind(event, address, reason, calling_ae), 1, now, now))

    def due(self, now: datetime) -> list[Alarm]:
        """Take out what may be told now; hand it back to `put_back` where it could not be written."""
        with self._lock:
            self._told = {kind: at for kind, at in self._told.items() if now - at < REPEAT}
            self._rows = [at for at in self._rows if now - at < timedelta(minutes=1)]
            ready = [kind for kind in self._waiting if kind not in self._told]
            chosen = ready[: ROWS_PER_MINUTE - len(self._rows)]
            self._rows += [now] * len(chosen)
            self._told.update(dict.fromkeys(chosen, now))
            return [self._waiting.pop(kind) for kind in chosen]

    def all(self) -> list[Alarm]:
        """Take out everything, at the end."""
        with self._lock:
            waiting, self._waiting = list(self._waiting.values()), {}
            return waiting

    def put_back(self, alarms: Sequence[Alarm]) -> None:
        """Keep what could not be written for another time."""
        with self._lock:
            for alarm in alarms:
                self._told.pop(alarm.kind, None)
                self._add(alarm)

    def _add(self, alarm: Alarm) -> None:
        kind = alarm.kind
        if kind not in self._waiting and len(self._waiting) >= KINDS:
            kind = Kind(kind.event, ELSEWHERE, kind.reason)
        known = self._waiting.get(kind, alarm)
        count = alarm.count + (known.count if kind in self._waiting else 0)
        first, last = min(known.first, alarm.first), max(known.last, alarm.last)
        self._waiting[kind] = Alarm(kind, count, first, last)


def write(session: Session, alarms: Sequence[Alarm], now: datetime) -> None:
    """Append a row for each to the audit trail; the peer's address is the actor."""
    for alarm in alarms:
        audit.append(
            session,
            event=alarm.kind.event,
            actor=alarm.kind.address,
            now=now,
            outcome=Outcome.MINOR_FAILURE,
            detail=alarm.detail,
        )
