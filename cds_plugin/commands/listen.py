"""`cds-plugin listen`: the DICOM listener."""

from __future__ import annotations

from pathlib import Path

import structlog

from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, guarded
from cds_plugin.database import open_database
from cds_plugin.foreground import stop_on_signals
from cds_plugin.presence import audited_life
from cds_plugin.receive.listener import PROCESS_NAME, DicomListener

log = structlog.get_logger()


def command(config: ConfigOption = None) -> None:
    """Receive studies over DICOM until SIGTERM or Ctrl-C."""
    guarded(lambda: _listen(config))


def _listen(config: Path | None) -> None:
    settings = load_settings(config)
    stop = stop_on_signals()
    engine = open_database(settings)
    with audited_life(engine, PROCESS_NAME), DicomListener(settings, engine):
        stop.wait()
    log.info("stopped")
