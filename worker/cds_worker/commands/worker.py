"""`cds-plugin worker`: analyse the studies that were closed, until told to stop."""

from __future__ import annotations

import structlog

from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, guarded
from cds_worker.app import run_worker

log = structlog.get_logger("worker")


def command(config: ConfigOption = None) -> None:
    """Run the models on closed studies, one process per device, until SIGTERM."""
    guarded(lambda: _work(config))


def _work(config: ConfigOption) -> int:
    settings = load_settings(config)
    log.info("settings", **settings.redacted())
    return run_worker(settings)
