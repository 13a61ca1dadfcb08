"""`cds-plugin deliver`: results to their destinations."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import structlog

from cds_db.stages import JobKind
from cds_plugin.commitment.reporter import Reporter
from cds_plugin.config import load_settings
from cds_plugin.console import ConfigOption, Exit, guarded
from cds_plugin.database import open_database
from cds_plugin.deliver.dispatch import Dispatcher
from cds_plugin.deliver.task import Deliverer
from cds_plugin.garbage import keep_loaded
from cds_plugin.presence import Presence, audited_life
from cds_plugin.queue import QUEUE_OF, TASK_OF, make_app
from cds_plugin.sealing.vault import Vault
from cds_plugin.watchdog import Watchdog

log = structlog.get_logger()

PROCESS_NAME = "deliver"


def command(config: ConfigOption = None) -> None:
    """Send results to their destinations and commitment reports until SIGTERM or Ctrl-C."""
    guarded(lambda: _deliver(config))


def _deliver(config: Path | None) -> int:
    settings = load_settings(config)
    Vault.of(settings)
    engine = open_database(settings)
    stopping = Event()
    dispatcher = Dispatcher(engine, Deliverer(settings, engine, stopping), Reporter(settings, engine))
    app = make_app(settings, consumes=True)
    app.task(name=TASK_OF[JobKind.DELIVERY])(dispatcher.submit)
    app.task(name=TASK_OF[JobKind.COMMITMENT])(dispatcher.submit)
    watchdog = Watchdog(app, make_app(settings), PROCESS_NAME)
    worker = app.Worker(
        pool="threads",
        concurrency=1,
        queues=watchdog.queues([QUEUE_OF[JobKind.DELIVERY], QUEUE_OF[JobKind.COMMITMENT]]),
        hostname=f"{PROCESS_NAME}@%h",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="WARNING",
        quiet=True,
    )
    keep_loaded()
    with audited_life(engine, PROCESS_NAME), Presence(engine, PROCESS_NAME, worked=watchdog.sign.at):
        log.info("delivering", destinations=[each.name for each in settings.destinations])
        worker.start()
        stopping.set()
        dispatcher.close()
        watchdog.close()
    log.info("stopped")
    return Exit.FAILED if watchdog.bit.is_set() else Exit.DONE
