"""Deliveries side by side: each destination has its own threads, so a PACS that hangs holds up no other.

The urgent go first: for a PACS that is back after a day there is a long queue here.
Commitment reports have threads of their own, whoever they are for: AE titles cost a stranger nothing.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from heapq import heappop, heappush
from itertools import count

import structlog
from sqlalchemy import Engine, and_, select
from sqlalchemy.exc import SQLAlchemyError

from cds_db.models import Delivery, Job
from cds_db.session import snapshot
from cds_db.stages import JobKind
from cds_plugin.commitment.reporter import Reporter
from cds_plugin.deliver.task import Deliverer
from cds_plugin.discretion import places

log = structlog.get_logger()

ASSOCIATIONS_PER_DESTINATION = 2
"""A PACS is not to be flooded by us."""
REPORTS_AT_ONCE = 4
"""A requester that hangs holds one of these threads for as long as an association request may take."""


class Dispatcher:
    """Takes job ids at once and runs them per destination: the urgent first, then in the order of coming."""

    def __init__(self, engine: Engine, deliverer: Deliverer, reporter: Reporter) -> None:
        self._engine = engine
        self._deliverer = deliverer
        self._reporter = reporter
        self._reports = ThreadPoolExecutor(REPORTS_AT_ONCE, thread_name_prefix="report")
        self._lock = threading.Lock()
        self._waiting: set[int] = set()
        self._queues: defaultdict[str, list[tuple[int, int, int, JobKind]]] = defaultdict(list)
        self._number = count()
        self._threads: dict[str, ThreadPoolExecutor] = {}

    def submit(self, job_id: int) -> None:
        """Queue a job; one that waits here already, or that nobody knows, is left alone."""
        found = self._look_up(job_id)
        if found is None:
            return
        kind, destination, priority = found
        with self._lock:
            if job_id in self._waiting:
                return
            self._waiting.add(job_id)
            heappush(self._queues[destination], (-priority, next(self._number), job_id, kind))
            threads = self._reports if kind is JobKind.COMMITMENT else self._threads_of(destination)
        threads.submit(self._run_next, destination)

    def close(self) -> None:
        """Wait for what runs; what waits stays in the database and is woken again."""
        for threads in (self._reports, *self._threads.values()):
            threads.shutdown(cancel_futures=True)

    def _threads_of(self, destination: str) -> ThreadPoolExecutor:
        if destination not in self._threads:
            self._threads[destination] = ThreadPoolExecutor(
                ASSOCIATIONS_PER_DESTINATION, thread_name_prefix=f"deliver-{destination}"
            )
        return self._threads[destination]

    def _run_next(self, destination: str) -> None:
        """Run one of the jobs that wait for a destination: there are as many calls as jobs."""
        with self._lock:
            _, _, job_id, kind = heappop(self._queues[destination])
            self._waiting.discard(job_id)
        try:
            if kind is JobKind.COMMITMENT:
                self._reporter.run(job_id)
            else:
                self._deliverer.run(job_id)
        except Exception as error:
            log.error("job crashed", job=job_id, kind=kind, error=type(error).__name__, at=places(error))
            raise

    def _look_up(self, job_id: int) -> tuple[JobKind, str, int] | None:
        """Return kind, destination ("" of a report) and priority of a job that is ours."""
        wanted = (
            select(Job.kind, Delivery.destination, Job.priority)
            .outerjoin(Delivery, and_(Job.kind == JobKind.DELIVERY, Job.subject_id == Delivery.id))
            .where(Job.id == job_id, Job.kind != JobKind.ANALYSIS)
        )
        try:
            with snapshot(self._engine) as session:
                found = session.execute(wanted).one_or_none()
        except SQLAlchemyError as error:
            log.error("database is away", job=job_id, problem=type(error).__name__)
            return None
        return None if found is None else (found.kind, found.destination or "", found.priority)
