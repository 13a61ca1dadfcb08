"""Deliveries side by side: each destination has its own threads, so a PACS that hangs holds up no other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import structlog
from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from cds_db.models import Delivery, Job
from cds_db.session import snapshot
from cds_db.stages import JobKind
from cds_plugin.deliver.task import Deliverer

log = structlog.get_logger()

ASSOCIATIONS_PER_DESTINATION = 2
"""A PACS is not to be flooded by us."""


class Dispatcher:
    """Takes job ids at once and runs them in the order of their coming, per destination."""

    def __init__(self, engine: Engine, deliverer: Deliverer) -> None:
        self._engine = engine
        self._deliverer = deliverer
        self._lock = threading.Lock()
        self._waiting: set[int] = set()
        self._threads: dict[str, ThreadPoolExecutor] = {}

    def submit(self, job_id: int) -> None:
        """Queue a job; one that waits here already, or that nobody knows, is left alone."""
        destination = self._destination(job_id)
        if destination is None:
            return
        with self._lock:
            if job_id in self._waiting:
                return
            self._waiting.add(job_id)
            threads = self._threads.get(destination) or ThreadPoolExecutor(
                ASSOCIATIONS_PER_DESTINATION, thread_name_prefix=f"deliver-{destination}"
            )
            self._threads[destination] = threads
        threads.submit(self._run, job_id)

    def close(self) -> None:
        """Wait for what runs; what waits stays in the database and is woken again."""
        for threads in self._threads.values():
            threads.shutdown(cancel_futures=True)

    def _run(self, job_id: int) -> None:
        with self._lock:
            self._waiting.discard(job_id)
        self._deliverer.run(job_id)

    def _destination(self, job_id: int) -> str | None:
        of_job = select(Delivery.destination).join(Job, Job.subject_id == Delivery.id)
        try:
            with snapshot(self._engine) as session:
                return session.scalar(of_job.where(Job.id == job_id, Job.kind == JobKind.DELIVERY))
        except SQLAlchemyError as error:
            log.error("database is away", job=job_id, problem=type(error).__name__)
            return None
