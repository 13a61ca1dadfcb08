"""Which processes of this product are alive: each says so now and then."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from cds_db.locks import insert_if_absent
from cds_db.models import Process

FORGOTTEN_AFTER = timedelta(days=1)
"""A process that was silent for so long has no row any more."""


def label(host: str, pid: int) -> str:
    """Return the name of a process in the rows of what it holds open (`Association.listener`)."""
    return f"{host}:{pid}"


def say_hello(
    session: Session, name: str, host: str, pid: int, now: datetime, worked_at: datetime | None = None
) -> None:
    """Note a sign of life of one process, and when it last worked; the first is also when it started."""
    seen = {"seen_at": now, "worked_at": worked_at}
    values = {"name": name, "host": host, "pid": pid, "started_at": now, **seen}
    if insert_if_absent(session, Process, values, Process.pid) is not None:
        session.execute(delete(Process).where(Process.seen_at < now - FORGOTTEN_AFTER))
        return
    same = (Process.name == name, Process.host == host, Process.pid == pid)
    session.execute(update(Process).where(*same).values(**seen))


def say_goodbye(session: Session, name: str, host: str, pid: int) -> None:
    """Forget a process that ends in order."""
    session.execute(delete(Process).where(Process.name == name, Process.host == host, Process.pid == pid))


def alive(session: Session, since: datetime) -> list[Process]:
    """Return the processes seen at `since` or later."""
    seen = select(Process).where(Process.seen_at >= since)
    return list(session.scalars(seen.order_by(Process.name, Process.host, Process.pid)))
