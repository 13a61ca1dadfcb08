"""`cds-plugin listen`: the DICOM listener."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import structlog
import typer

from cds_plugin.config import load_settings, settings_file
from cds_plugin.console import ConfigOption, guarded
from cds_plugin.database import open_database
from cds_plugin.foreground import stop_on_signals
from cds_plugin.garbage import keep_loaded
from cds_plugin.presence import audited_life
from cds_plugin.receive.listener import PROCESS_NAME, DicomListener
from cds_plugin.receive.rulebook import RuleBook
from cds_plugin.receive.sharing import SHARING_OPTION, share

log = structlog.get_logger()


SharingOption = Annotated[
    bool, typer.Option(SHARING_OPTION, hidden=True, help="This is one of several listener processes.")
]


def command(config: ConfigOption = None, sharing: SharingOption = False) -> None:
    """Receive studies over DICOM until SIGTERM or Ctrl-C."""
    guarded(lambda: _listen(config, sharing))


def _listen(config: Path | None, sharing: bool) -> None:
    book = RuleBook(partial(load_settings, config), settings_file(config))
    settings = book.settings
    stop = stop_on_signals()
    engine = open_database(settings)
    if settings.listener.processes > 1 and not sharing:
        engine.dispose()
        share(settings, config, stop)
        return
    keep_loaded()
    with audited_life(engine, PROCESS_NAME), DicomListener(settings, engine, book=book):
        stop.wait()
    log.info("stopped")
