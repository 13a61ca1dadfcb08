"""`cds-plugin sweep`: closes studies, wakes what was missed, seals the audit chain."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import structlog
from sqlalchemy.exc import SQLAlchemyError

from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, guarded
from cds_plugin.database import open_database
from cds_plugin.foreground import stop_on_signals
from cds_plugin.garbage import keep_loaded
from cds_plugin.presence import Presence, audited_life
from cds_plugin.queue import make_app
from cds_plugin.receive.sweep import PROCESS_NAME, Sweeper

log = structlog.get_logger()


def command(config: ConfigOption = None) -> None:
    """Close studies, wake what was missed and seal the audit chain until SIGTERM or Ctrl-C."""
    guarded(lambda: _sweep(config))


def _sweep(config: Path | None) -> None:
    settings = load_settings(config)
    stop = stop_on_signals()
    engine = open_database(settings)
    sweeper = Sweeper(settings, engine, make_app(settings))
    keep_loaded()
    with audited_life(engine, PROCESS_NAME), Presence(engine, PROCESS_NAME, worked=sweeper.ticked_at):
        sweeper.run(stop)
    with suppress(SQLAlchemyError):
        sweeper.seal()
    log.info("stopped")
