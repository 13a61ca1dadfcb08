"""One delivery: the stored bytes of a revision's results to one destination. It may run twice without harm.

The database holds the truth: a claim with a lease, what the peer acknowledged object by object, and when to
try again. A PACS that is away costs a wait, never an analysis.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from cds_db import jobs, studies
from cds_db.models import Result
from cds_db.session import snapshot, transaction
from cds_db.stages import IllegalMove
from cds_plugin.config import Settings
from cds_plugin.deliver.backoff import ATTEMPTS, AWAY, REFUSED, Backoff
from cds_plugin.deliver.sender import Answer, Outgoing, Peer, peer_of, read_outgoing, send_files
from cds_plugin.errors import Refused, Unavailable
from cds_plugin.lease import Lease, LeaseLost, owner_name, take
from cds_plugin.receive.spool import sha256_of

log = structlog.get_logger()

ACTOR = "deliver"


@dataclass(frozen=True, slots=True)
class Work:
    """A claimed delivery and what of it the destination does not have yet."""

    job_id: int
    owner: str
    attempts: int
    delivery_id: int
    destination: str
    results: Sequence[Result]


@dataclass(frozen=True, slots=True)
class Deliverer:
    """Runs the delivery jobs of one process; safe to use from several threads."""

    settings: Settings
    engine: Engine
    stopping: Event

    def run(self, job_id: int) -> None:
        """Send what a destination does not have yet; do nothing where another process is at it."""
        try:
            work = self._claim(job_id)
            if work is not None:
                self._deliver(work)
        except (LeaseLost, IllegalMove) as error:
            log.warning("delivery left", job=job_id, reason=str(error) or type(error).__name__)
        except SQLAlchemyError as error:
            log.error("database is away", job=job_id, problem=type(error).__name__)

    def _claim(self, job_id: int) -> Work | None:
        owner = owner_name()
        with transaction(self.engine) as session:
            taken = take(session, job_id, owner)
            if taken is None:
                return None
            studies.start_delivery(session, taken.subject_id, now=datetime.now(UTC), actor=ACTOR)
            delivery, results = studies.delivery_objects(session, taken.subject_id)
        return Work(job_id, owner, taken.attempts, delivery.id, delivery.destination, results)

    def _deliver(self, work: Work) -> None:
        refusals: list[str] = []
        lease = Lease(self.engine, work.job_id, work.owner)
        try:
            with lease:
                self._send(work, lease, refusals)
        except Unavailable as error:
            self._retry(work, lease, AWAY, error.message)
            return
        except Refused as error:
            self._fail(work, lease, error.message)
            return
        if refusals:
            self._retry(work, lease, REFUSED, refusals[0])
        elif self.stopping.is_set() or lease.lost:
            self._give_back(work, lease)
        else:
            self._finish(work, lease)

    def _send(self, work: Work, lease: Lease, refusals: list[str]) -> None:
        peer = self._peer(work.destination)
        files = [self._outgoing(result) for result in work.results]

        def note(answer: Answer) -> bool:
            if answer.stored:
                self._note_delivered(work, answer)
            else:
                refusals.append(f"{peer} refused {answer.outgoing.sop_instance_uid}: {answer}")
            return not lease.lost and not self.stopping.is_set() and self._may_go_on(work)

        if files:
            send_files(files, peer, self.settings.listener.ae_title, note)

    def _peer(self, name: str) -> Peer:
        for each in self.settings.destinations:
            if each.name == name:
                return peer_of(self.settings, each)
        raise Refused("unknown_destination", f"no destination is named {name!r}", "Add it to the settings.")

    def _outgoing(self, result: Result) -> Outgoing:
        """Return the file of a result after checking that its bytes are those that were recorded."""
        path = self.settings.storage.directory / result.path
        if not path.is_file() or sha256_of(path) != result.sha256:
            raise Refused(
                "result_changed",
                f"{result.path} is not the file that was recorded",
                "Restore it; nothing else is ever sent.",
            )
        return read_outgoing(path)

    def _may_go_on(self, work: Work) -> bool:
        with snapshot(self.engine) as session:
            return studies.is_pending(session, work.delivery_id)

    def _note_delivered(self, work: Work, answer: Answer) -> None:
        with transaction(self.engine) as session:
            studies.record_object_delivered(
                session,
                work.delivery_id,
                answer.outgoing.sop_instance_uid,
                now=datetime.now(UTC),
                actor=ACTOR,
                detail={"status": f"0x{answer.status:04X}"},
            )

    def _finish(self, work: Work, lease: Lease) -> None:
        with self._fenced(lease) as (session, now):
            studies.finish_delivery(session, work.delivery_id, now=now, actor=ACTOR)
            jobs.finish(session, work.job_id, work.owner)
        log.info("delivered", job=work.job_id, destination=work.destination, objects=len(work.results))

    def _give_back(self, work: Work, lease: Lease) -> None:
        with self._fenced(lease) as (session, now):
            jobs.retry_later(session, work.job_id, work.owner, not_before=now, error="stopped")

    def _retry(self, work: Work, lease: Lease, backoff: Backoff, error: str) -> None:
        if work.attempts >= ATTEMPTS:
            self._fail(work, lease, error)
            return
        wait = backoff.wait(work.attempts, random.random())
        with self._fenced(lease) as (session, now):
            studies.record_delivery_attempt(session, work.delivery_id, error, now=now, actor=ACTOR)
            jobs.retry_later(session, work.job_id, work.owner, not_before=now + wait, error=error)
        seconds = wait.total_seconds()
        log.warning("delivery retried", job=work.job_id, destination=work.destination, wait_seconds=seconds)

    def _fail(self, work: Work, lease: Lease, error: str) -> None:
        with self._fenced(lease) as (session, now):
            studies.fail_delivery(session, work.delivery_id, error, now=now, actor=ACTOR)
            jobs.bury(session, work.job_id, work.owner, error)
        log.error("delivery failed", job=work.job_id, destination=work.destination)

    @contextmanager
    def _fenced(self, lease: Lease) -> Iterator[tuple[Session, datetime]]:
        """Yield a transaction for how an attempt ended; it rolls back where the lease is lost."""
        with transaction(self.engine) as session:
            lease.fence(session)
            yield session, datetime.now(UTC)
