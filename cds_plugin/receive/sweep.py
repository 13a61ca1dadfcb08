"""The sweeper closes complete revisions, wakes what was missed, seals the audit, clears up after the dead.

Every step may be repeated and none depends on another. What fails (database or broker away) is logged and
tried again: until then studies stay open and audit rows unsealed, and nothing is lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog
from celery import Celery
from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import InstrumentedAttribute, Session

from cds_db import audit, dead_letters, jobs, overdue, processes, retention, stranded, studies
from cds_db.models import Association, AuditEntry, Instance, Result
from cds_db.retention import Marked
from cds_db.session import snapshot, transaction
from cds_db.stages import IllegalMove, JobKind
from cds_db.waits import ANALYSIS_WITHIN
from cds_plugin.config import Settings
from cds_plugin.durable import (
    ORIGINALS_FOLDER,
    ORPHAN_GRACE_SECONDS,
    PREFIXES,
    RESULTS_FOLDER,
    SPOOL_FOLDER,
    remove_orphans,
)
from cds_plugin.queue import room, wake
from cds_plugin.receive.closing import ClosingRule, close_due
from cds_plugin.retention import Purge

log = structlog.get_logger()

PROCESS_NAME = "sweep"
TICK_SECONDS = 0.25
"""A complete study waits at most this long to be closed; a row to be sealed."""
LISTENERS_SECONDS = 5.0
STATES_SECONDS = 15.0
"""How often states that wait are looked at; their limits are hours."""
ORPHANS_SECONDS = 30.0
"""One of 256 folders at a time: a round takes two hours."""
ROWS_OF: dict[str, InstrumentedAttribute[Any]] = {
    SPOOL_FOLDER: Instance.path,
    ORIGINALS_FOLDER: Instance.original_path,
    RESULTS_FOLDER: Result.path,
}
"""Folders below the storage directory, and the paths of their files that rows speak of."""
PATHS_PER_QUERY = 500
"""Databases bound the parameters of a statement."""
AFTER_FAILURE_SECONDS = 1.0
PURGE_SECONDS = 3600.0
PURGE_SLICE_SECONDS = 0.1
"""What a tick spends on purging, and the rest of the piece in hand: closing and sealing go on meanwhile."""
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
        self._storage = settings.storage.directory
        self._next_prefix = 0
        self._full: set[JobKind] = set()
        self._broker_away_until = 0.0
        self._slow_steps = {
            self._forget_dead_listeners: LISTENERS_SECONDS,
            self.end_stranded: STATES_SECONDS,
            self.say_overdue: STATES_SECONDS,
            self._remove_orphans: ORPHANS_SECONDS,
        }
        if settings.retention.automatic:
            self._slow_steps[self._begin_purge] = PURGE_SECONDS
        self._settings = settings
        self._purging: Iterator[Marked] = iter(())
        self._ticked_at = datetime.now(UTC)
        self._last_run: dict[Callable[[], None], float] = {}

    def run(self, stop: threading.Event) -> None:
        """Tick until `stop` is set, then seal what is left."""
        log.info("sweeping")
        while not stop.is_set():
            well = self.tick()
            self._ticked_at = datetime.now(UTC)
            stop.wait(TICK_SECONDS if well else AFTER_FAILURE_SECONDS)
        self._try(self.seal)

    def ticked_at(self) -> datetime:
        """Return when the last round ended."""
        return self._ticked_at

    def tick(self) -> bool:
        """Run every step that is due; return whether all of them worked."""
        now = time.monotonic()
        due = [step for step, every in self._slow_steps.items() if self._is_due(step, every, now)]
        always = (self.close, self.give_up_lost, self.wake_due, self.seal)
        return all([self._try(step) for step in (*always, *due, self._purge)])

    def close(self) -> None:
        """Close complete revisions; a worker is woken by the next step, after the commit."""
        for job_id, reason in close_due(self._engine, self._rule, datetime.now(UTC)):
            log.info("revision closed", job=job_id, reason=reason)

    def wake_due(self) -> None:
        """Wake jobs that nobody was woken for, whose time has come, or whose worker died.

        A queue that is full enough gets nothing more; what is in it wakes whoever consumes it.
        """
        if time.monotonic() < self._broker_away_until:
            return
        with snapshot(self._engine) as session:
            due = jobs.due(session, datetime.now(UTC), WAKE_LIMIT, without=self._full)
        left = {kind: room(self._app, kind) for kind in {kind for _, kind in due} | self._full}
        if None in left.values():
            self._note_broker_away()
            return
        self._full = {kind for kind, more in left.items() if not more}
        self._wake([each for each in due if each[1] not in self._full])

    def give_up_lost(self) -> None:
        """Make dead letters of the jobs that took too many processes with them."""
        with snapshot(self._engine) as session:
            lost = jobs.lost_too_often(session, datetime.now(UTC), WAKE_LIMIT)
        for job_id in lost:
            with self._apart() as session:
                reason = dead_letters.bury_lost(session, job_id, now=datetime.now(UTC), actor=PROCESS_NAME)
                log.error("job given up", job=job_id, reason=reason)

    def end_stranded(self) -> None:
        """Give up what is put off for too long or waits for nobody, and end work for nothing."""
        now = datetime.now(UTC)
        with snapshot(self._engine) as session:
            put_off = overdue.put_off_too_long(session, now - ANALYSIS_WITHIN, WAKE_LIMIT)
            found = stranded.stranded(session)
        for job_id in put_off:
            with self._apart() as session:
                dead_letters.bury_put_off(session, job_id, now=now, actor=PROCESS_NAME)
                log.error("job given up", job=job_id, reason="put off for too long")
        for each in found:
            with self._apart() as session:
                if stranded.end(session, each, now=now, actor=PROCESS_NAME):
                    log.error("stranded", subject=each.subject, id=each.id)

    @contextmanager
    def _apart(self) -> Iterator[Session]:
        """Yield a transaction for one of many; where it can't be done the others are not held up."""
        try:
            with transaction(self._engine) as session:
                yield session
        except IllegalMove as error:
            log.error("not given up", problem=str(error))

    def say_overdue(self) -> None:
        """Say what has waited for longer than its limit, once."""
        now = datetime.now(UTC)
        with snapshot(self._engine) as session:
            late = overdue.overdue(session, now)
            known = overdue.are_said(session, late)
        if known:
            return
        with transaction(self._engine) as session:
            said = overdue.say_new(session, late, now=now, actor=PROCESS_NAME)
        for each in said:
            log.warning(
                "overdue", subject=each.subject, id=each.subject_id, state=each.state, limit=each.limit
            )

    def seal(self) -> None:
        """Link every committed audit row into the hash chain."""
        while self._has_unsealed():
            with transaction(self._engine) as session:
                audit.seal(session, datetime.now(UTC))

    def _has_unsealed(self) -> bool:
        with snapshot(self._engine) as session:
            unsealed = select(AuditEntry.id).where(AuditEntry.seq.is_(None)).limit(1)
            return session.scalar(unsealed) is not None

    def _wake(self, due: Sequence[tuple[int, JobKind]]) -> None:
        """Note the waking first: a job that its task hands back at once must not look woken afterwards."""
        if not due:
            return
        now = datetime.now(UTC)
        self._mark([job_id for job_id, _ in due], now)
        for position, (job_id, kind) in enumerate(due):
            if not wake(self._app, kind, job_id):
                unheard = [job_id for job_id, _ in due[position:]]
                self._mark(unheard, now - timedelta(seconds=jobs.WAKE_AGAIN_SECONDS))
                self._note_broker_away()
                return
        if self._broker_away_until:
            log.info("broker is back")
            self._broker_away_until = 0.0

    def _note_broker_away(self) -> None:
        """Say it once, and leave the broker alone for a while: nobody hears of a job without it."""
        if not self._broker_away_until:
            log.warning("broker is away")
        self._broker_away_until = time.monotonic() + AFTER_FAILURE_SECONDS

    def _mark(self, job_ids: Sequence[int], woken_at: datetime) -> None:
        with transaction(self._engine) as session:
            jobs.mark_woken(session, job_ids, woken_at)

    def _forget_dead_listeners(self) -> None:
        since = datetime.now(UTC) - timedelta(seconds=SILENT_LISTENER_SECONDS)
        with snapshot(self._engine) as session:
            listeners = session.scalars(select(Association.listener).distinct()).all()
            alive = {processes.label(each.host, each.pid) for each in processes.alive(session, since)}
        for listener in set(listeners) - alive:
            log.warning("listener is dead", listener=listener)
            with transaction(self._engine) as session:
                studies.forget_listener(session, listener)

    def _remove_orphans(self) -> None:
        """Look at one folder of each kind; the next time at the next ones."""
        prefix = PREFIXES[self._next_prefix]
        self._next_prefix = (self._next_prefix + 1) % len(PREFIXES)
        for place, paths in ROWS_OF.items():
            folder = self._storage / place / prefix
            if not folder.is_dir():
                continue
            with snapshot(self._engine) as session:
                known = partial(_known, session, paths)
                removed = remove_orphans(folder, self._storage, known, time.time() - ORPHAN_GRACE_SECONDS)
            if removed:
                log.info("orphans removed", place=place, files=removed)

    def _begin_purge(self) -> None:
        purge = Purge(self._settings, self._engine, datetime.now(UTC), PROCESS_NAME)
        self._purging = purge.pieces()

    def _purge(self) -> None:
        """Go on with a purge that was begun; one that fails is begun anew when its time comes."""
        end = time.monotonic() + PURGE_SLICE_SECONDS
        for marked in self._purging:
            if marked.files:
                log.info("purged", files=marked.files, size_bytes=marked.size_bytes)
            if time.monotonic() > end:
                return

    def _is_due(self, step: Callable[[], None], every: float, now: float) -> bool:
        if now - self._last_run.get(step, -every) < every:
            return False
        self._last_run[step] = now
        return True

    def _try(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except (SQLAlchemyError, audit.ChainBroken, IllegalMove, OSError) as error:
            log.error("step failed", step=step.__name__, problem=type(error).__name__)
            return False
        return True


def _known(session: Session, column: InstrumentedAttribute[Any], paths: Sequence[str]) -> set[str]:
    known: set[str] = set()
    for start in range(0, len(paths), PATHS_PER_QUERY):
        some = column.in_(paths[start : start + PATHS_PER_QUERY])
        known.update(session.scalars(select(column).where(some, retention.still_there(column))))
    return known
