"""The sweeper closes complete revisions, wakes what was missed, seals the audit, clears up after the dead.

Every step may be repeated and none depends on another. What fails (database or broker away) is logged and
tried again: until then studies stay open and audit rows unsealed, and nothing is lost.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import structlog
from celery import Celery
from sqlalchemy import Engine, distinct, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from cds_db import audit, jobs, processes, studies
from cds_db.models import Association, Instance
from cds_db.session import transaction
from cds_db.stages import IllegalMove, JobKind
from cds_plugin.config import Settings
from cds_plugin.queue import wake
from cds_plugin.receive.closing import ClosingRule, close_due
from cds_plugin.receive.spool import ORPHAN_GRACE_SECONDS, PREFIXES, Spool

log = structlog.get_logger()

PROCESS_NAME = "sweep"
TICK_SECONDS = 0.25
"""A complete study waits at most this long to be closed; a row to be sealed."""
HELLO_SECONDS = 1.0
ORPHANS_SECONDS = 10.0
"""One of 256 spool folders at a time: a round takes 43 minutes."""
AFTER_FAILURE_SECONDS = 1.0
WAKE_LIMIT = 200
"""Jobs woken in one tick: a long queue must not keep the sealer waiting."""
SILENT_LISTENER_SECONDS = 30.0
"""A listener says hello every second; one that did not for this long is dead, and so are its associations."""


class Sweeper:
    """The steps of one sweeper process; `tick` runs those that are due."""

    def __init__(self, settings: Settings, engine: Engine, app: Celery) -> None:
        self._engine = engine
        self._app = app
        self._rule = ClosingRule.of(settings.listener)
        self._spool = Spool(settings.storage.directory)
        self._next_prefix = 0
        self._slow_steps = {
            self._say_hello: HELLO_SECONDS,
            self._forget_dead_listeners: HELLO_SECONDS,
            self._remove_orphans: ORPHANS_SECONDS,
        }
        self._last_run: dict[Callable[[], None], float] = {}

    def run(self, stop: threading.Event) -> None:
        """Tick until `stop` is set, then seal what is left."""
        log.info("sweeping")
        while not stop.is_set():
            well = self.tick()
            stop.wait(TICK_SECONDS if well else AFTER_FAILURE_SECONDS)
        self._try(self.seal)

    def tick(self) -> bool:
        """Run every step that is due; return whether all of them worked."""
        now = time.monotonic()
        due = [step for step, every in self._slow_steps.items() if self._is_due(step, every, now)]
        return all([self._try(step) for step in (self.close, self.wake_due, self.seal, *due)])

    def close(self) -> None:
        """Close complete revisions; the worker is woken after the commit."""
        for job_id, reason in close_due(self._engine, self._rule, datetime.now(UTC)):
            log.info("revision closed", job=job_id, reason=reason)
            self._wake([(job_id, JobKind.ANALYSIS)])

    def wake_due(self) -> None:
        """Wake jobs that nobody was woken for, whose time has come, or whose worker died."""
        with transaction(self._engine) as session:
            due = jobs.due(session, datetime.now(UTC), WAKE_LIMIT)
        self._wake(due)

    def seal(self) -> None:
        """Link every committed audit row into the hash chain."""
        while True:
            with transaction(self._engine) as session:
                sealed = audit.seal(session, datetime.now(UTC))
            if sealed < audit.SEAL_BATCH:
                return

    def _wake(self, due: Sequence[tuple[int, JobKind]]) -> None:
        woken = [job_id for job_id, kind in due if wake(self._app, kind, job_id)]
        if len(woken) < len(due):
            log.warning("broker is away", jobs_waiting=len(due) - len(woken))
        if woken:
            with transaction(self._engine) as session:
                jobs.mark_woken(session, woken, datetime.now(UTC))

    def _say_hello(self) -> None:
        with transaction(self._engine) as session:
            processes.say_hello(session, PROCESS_NAME, socket.gethostname(), os.getpid(), datetime.now(UTC))

    def _forget_dead_listeners(self) -> None:
        since = datetime.now(UTC) - timedelta(seconds=SILENT_LISTENER_SECONDS)
        with transaction(self._engine) as session:
            listeners = session.scalars(select(distinct(Association.listener))).all()
            alive = {f"{each.host}:{each.pid}" for each in processes.alive(session, since)}
            for listener in set(listeners) - alive:
                log.warning("listener is dead", listener=listener)
                studies.forget_listener(session, listener)

    def _remove_orphans(self) -> None:
        prefix = PREFIXES[self._next_prefix]
        self._next_prefix = (self._next_prefix + 1) % len(PREFIXES)
        if (self._spool.files / prefix).is_dir():
            with transaction(self._engine) as session:
                removed = self._spool.remove_orphans(
                    prefix, lambda paths: _known(session, paths), time.time() - ORPHAN_GRACE_SECONDS
                )
            if removed:
                log.info("orphans removed", files=removed)

    def _is_due(self, step: Callable[[], None], every: float, now: float) -> bool:
        if now - self._last_run.get(step, -every) < every:
            return False
        self._last_run[step] = now
        return True

    def _try(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except (SQLAlchemyError, IllegalMove, OSError) as error:
            log.error("step failed", step=step.__name__, problem=type(error).__name__)
            return False
        return True


def _known(session: Session, paths: Sequence[str]) -> set[str]:
    return set(session.scalars(select(Instance.path).where(Instance.path.in_(paths))))
