"""What the parts that run in the foreground share: the database they need, and being asked to stop."""

from __future__ import annotations

import signal
import threading

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cds_db.migrate import is_current
from cds_db.session import open_engine
from cds_plugin.config import Settings
from cds_plugin.errors import Refused, Unavailable


def open_database(settings: Settings) -> Engine:
    """Return an engine on a database of this version's schema.

    Raises Refused where it was never upgraded to it, Unavailable where it does not answer.
    """
    url = settings.database.url
    try:
        current = is_current(url)
    except SQLAlchemyError as error:
        raise Unavailable(
            "database_away", f"the database does not answer ({type(error).__name__})", "Start it."
        ) from error
    if not current:
        raise Refused(
            "database_not_current",
            "the database does not have this version's schema",
            "Run cds-plugin db upgrade.",
        )
    return open_engine(url)


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set; call it in the main thread."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
