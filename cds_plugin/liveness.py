"""Whether one part lives on this machine: little enough to ask every half minute."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from cds_db.processes import alive
from cds_db.session import snapshot
from cds_plugin.config import Settings
from cds_plugin.database import opened_database
from cds_plugin.presence import IDLE_MOST
from cds_plugin.reach import port_is_open
from cds_plugin.web.paths import READY_PATH
from cds_plugin.web.probe import web_answers

SILENCE = timedelta(seconds=30)
"""A part says hello every second. One on a busy machine, or whose database was restarted, may be late."""


def part_lives(settings: Settings, part: str) -> bool:
    """Return whether a part of this machine said hello and worked lately, and takes connections if it should.

    Raises CdsError where the database can't be asked, KeyError for an unknown part.
    """
    return PARTS[part](settings) and _said_hello(settings, part)


def _said_hello(settings: Settings, part: str) -> bool:
    host, now = socket.gethostname(), datetime.now(UTC)
    with opened_database(settings) as engine, snapshot(engine) as session:
        seen = alive(session, now - SILENCE)
    mine = [process for process in seen if process.name == part and process.host == host]
    return any(each.worked_at is None or each.worked_at >= now - IDLE_MOST for each in mine)


def _listens(settings: Settings) -> bool:
    port = settings.listener.port if settings.tls.plain else settings.tls.port
    return port_is_open(settings.listener.host, port)


PARTS: Mapping[str, Callable[[Settings], bool]] = {
    "listener": _listens,
    "web": lambda settings: web_answers(settings.web, READY_PATH),
    "worker": lambda _: True,
    "deliver": lambda _: True,
    "sweep": lambda _: True,
}
"""Part -> what must hold besides its sign of life."""
