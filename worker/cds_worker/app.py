"""The worker's Celery application: one prefork child per device, each with its models loaded and warm.

The parent imports the libraries and checks the bundles, but touches no device: what it learned a new child
inherits, so replacing a killed child costs the loading of the models only.
"""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
from billiard.process import current_process
from celery import Celery, signals

from cds_db import audit
from cds_db.events import Event, Outcome
from cds_db.session import transaction
from cds_db.stages import JobKind
from cds_plugin.config import Settings
from cds_plugin.database import open_database
from cds_plugin.errors import CdsError
from cds_plugin.garbage import keep_loaded
from cds_plugin.presence import Presence, audited_life
from cds_plugin.queue import HARD_LIMIT_SECONDS, QUEUE_OF, TASK_OF, VISIBILITY_TIMEOUT_SECONDS, make_app
from cds_plugin.sealing.vault import Vault
from cds_plugin.watchdog import Watchdog
from cds_worker.bundle import check_bundles
from cds_worker.inference import Analyst
from cds_worker.stack import devices, import_stack
from cds_worker.stage import DeviceFailed
from cds_worker.timers import ForgetsCancelled

LOADING_SECONDS = 300
"""A child that has not loaded its models after this time is killed and replaced."""
MAX_CHILD_MEMORY_KIB = 8 * 1024 * 1024
"""A child that holds more after a task is replaced; one picture of 120 megapixels needs a third of it."""

PART_NAME = "worker"
"""Under this name a child says hello once its models are warm."""

assert HARD_LIMIT_SECONDS < VISIBILITY_TIMEOUT_SECONDS, "a running task would be handed out twice"

log = structlog.get_logger()


class StopFlag:
    """One byte shared with every child: set once, when the worker is asked to stop."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def set(self) -> None:
        """Ask every child to hand its study back after the picture in hand."""
        self._memory[0] = 1

    def is_set(self) -> bool:
        """Return whether the worker was asked to stop."""
        return self._memory[0] == 1


@dataclass(slots=True)
class Seat:
    """Where one child keeps what it loaded; empty in the parent."""

    settings: Settings
    devices: tuple[str, ...]
    stopping: StopFlag = field(default_factory=StopFlag)
    failed: StopFlag = field(default_factory=StopFlag)
    worked: Callable[[], datetime | None] = lambda: None
    """When the parent last took a message."""
    analyst: Analyst | None = None
    kept: ExitStack = field(default_factory=ExitStack)

    def take(self, **_: object) -> None:
        """Load the models on this child's device; a child that can't stops the whole worker."""
        device = self.devices[current_process().index % len(self.devices)]
        try:
            analyst = Analyst.load(self.settings, import_stack(), device, self.stopping.is_set)
            self.kept.enter_context(audited_life(analyst.engine, PART_NAME))
            self.kept.enter_context(Presence(analyst.engine, PART_NAME, worked=self.worked))
            self.analyst = analyst
        except CdsError as error:
            log.error("worker-can-not-load", **error.as_json())
        finally:
            if self.analyst is None:
                self.failed.set()
                os.kill(os.getppid(), signal.SIGTERM)

    def leave(self, **_: object) -> None:
        """Say goodbye where the child ends in order."""
        self.kept.close()

    def analyse(self, job_id: int) -> None:
        """Do the analysis job `job_id`, or leave it to somebody else; a child whose device failed ends."""
        if self.analyst is None:
            return
        try:
            self.analyst.work(job_id)
        except DeviceFailed as error:
            log.error("worker-of-no-use", **error.as_json())
            raise SystemExit(1) from error


def run_worker(settings: Settings) -> int:
    """Run until SIGTERM; return the exit code. Raises Refused and Unavailable before anything starts."""
    _check_bundles(settings)
    Vault.of(settings)
    stack = import_stack()
    seat = Seat(settings, devices(stack, settings.worker.device))
    app = _app_with_task(settings, seat)
    watchdog = Watchdog(app, make_app(settings), PART_NAME)
    seat.worked = watchdog.sign.at
    worker = app.Worker(
        pool="prefork",
        concurrency=len(seat.devices),
        queues=watchdog.queues([QUEUE_OF[JobKind.ANALYSIS]]),
        loglevel="WARNING",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    keep_loaded()
    worker.start()
    watchdog.close()
    return 1 if seat.failed.is_set() or watchdog.bit.is_set() else int(worker.exitcode or 0)


def _check_bundles(settings: Settings) -> None:
    """Raise Refused for bad bundles; that nobody vouches for them, where allowed, is audited."""
    engine = open_database(settings)
    try:
        doubt = check_bundles(settings.bundles).doubt
        if doubt:
            with transaction(engine) as session:
                audit.append(
                    session,
                    event=Event.BUNDLES_NOT_SIGNED,
                    actor=PART_NAME,
                    now=datetime.now(UTC),
                    outcome=Outcome.MINOR_FAILURE,
                    detail={"problem": doubt, "directory": settings.bundles.directory},
                )
    finally:
        engine.dispose()


def _app_with_task(settings: Settings, seat: Seat) -> Celery:
    app = make_app(settings, consumes=True)
    app.conf.update(
        worker_proc_alive_timeout=LOADING_SECONDS,
        worker_max_memory_per_child=MAX_CHILD_MEMORY_KIB,
        worker_redirect_stdouts=False,
    )
    app.steps["worker"].add(ForgetsCancelled)
    app.task(name=TASK_OF[JobKind.ANALYSIS])(seat.analyse)
    signals.worker_process_init.connect(seat.take, weak=False)
    signals.worker_process_shutdown.connect(seat.leave, weak=False)
    signals.setup_logging.connect(lambda **_: None, weak=False)  # whoever starts the process has set it up
    signals.worker_shutting_down.connect(lambda **_: seat.stopping.set(), weak=False)
    return app
