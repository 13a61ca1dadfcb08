"""One delivery: the stored bytes of a revision's results to one destination. It may run twice without harm.

The database holds the truth: a claim with a lease, what the peer acknowledged object by object, and when to
try again. A PACS that is away costs a wait, never an analysis.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from cds_db import destinations, jobs, resting, studies
from cds_db.locks import locked_delivery
from cds_db.models import Delivery, Job, Result
from cds_db.session import snapshot, transaction
from cds_db.stages import AskedState, DeliveryState, IllegalMove
from cds_plugin.config import Destination, Settings
from cds_plugin.deliver.asking import Asker
from cds_plugin.deliver.backoff import AWAY, REFUSED, Backoff
from cds_plugin.deliver.breaker import Breaker
from cds_plugin.deliver.carrier import carrier_of, destination_of, retry_for
from cds_plugin.deliver.sender import REJECTED, Answer, stored_outgoing
from cds_plugin.deliver.verdict import Verdict
from cds_plugin.errors import Refused, Unavailable
from cds_plugin.lease import Lease, LeaseLost, let_go, owner_name, take
from cds_plugin.sealing.vault import Vault

log = structlog.get_logger()

ACTOR = "deliver"
SLOWLY = frozenset((REJECTED, "no_authorization", "web_unauthorised", "web_refused"))
"""Failures of a peer that is there: trying every minute would change nothing."""


@dataclass(frozen=True, slots=True)
class Work:
    """A claimed delivery and what of it the destination does not have yet."""

    job_id: int
    owner: str
    attempts: int
    delivery_id: int
    destination: str
    retry_until: datetime
    results: Sequence[Result]


@dataclass(slots=True)
class Tally:
    """What a destination said in one attempt, as far as it did not take an object."""

    later: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    interrupted: bool = False
    answered: bool = False


@dataclass(frozen=True, slots=True)
class Deliverer:
    """Runs the delivery jobs of one process; safe to use from several threads."""

    settings: Settings
    engine: Engine
    stopping: Event

    def run(self, job_id: int) -> None:
        """Send what a destination does not have yet; do nothing where another process is at it."""
        owner = owner_name()
        try:
            self._run(job_id, owner)
        except (LeaseLost, IllegalMove) as error:
            log.warning("delivery left", job=job_id, reason=str(error) or type(error).__name__)
        except SQLAlchemyError as error:
            log.error("database is away", job=job_id, problem=type(error).__name__)
            let_go(self.engine, job_id, owner, error)

    def _run(self, job_id: int, owner: str) -> None:
        with transaction(self.engine) as session:
            delivery = self._taken(session, job_id, owner)
            if delivery is None:
                return
            asking = delivery.commitment is AskedState.PENDING
            work = None if asking else self._start(session, job_id, owner, delivery.id)
        if work is not None:
            self._deliver(work)
        elif asking:
            breaker = Breaker(self.engine, delivery.destination, ACTOR)
            Asker(self.settings, self.engine, breaker).run(job_id, owner, delivery.id)

    def _taken(self, session: Session, job_id: int, owner: str) -> Delivery | None:
        """Claim the job and return its delivery; None where somebody has it, or nothing is to be sent now."""
        job = session.get(Job, job_id)
        delivery = None if job is None else session.get(Delivery, job.subject_id)
        if delivery is None or destinations.is_paused(session, delivery.destination):
            return None
        now, name = datetime.now(UTC), delivery.destination
        if not resting.admit(session, name, delivery.retry_until, now):
            return None
        if take(session, job_id, owner) is None:
            resting.withdraw(session, name, now)
            return None
        delivery = locked_delivery(session, delivery.id)
        if delivery.state is DeliveryState.DELIVERED and delivery.commitment is not AskedState.PENDING:
            jobs.finish(session, job_id, owner)
            resting.withdraw(session, name, now)
            return None
        return delivery

    def _start(self, session: Session, job_id: int, owner: str, delivery_id: int) -> Work:
        now = datetime.now(UTC)
        delivery, results = studies.delivery_objects(session, delivery_id)
        wanted = retry_for(self.settings, delivery.destination)
        studies.start_delivery(session, delivery_id, now=now, actor=ACTOR, retry_for=wanted)
        attempts = session.get_one(Job, job_id, populate_existing=True).attempts
        until = delivery.retry_until or now
        return Work(job_id, owner, attempts, delivery.id, delivery.destination, until, results)

    def _deliver(self, work: Work) -> None:
        tally = Tally()
        lease = Lease(self.engine, work.job_id, work.owner)
        breaker = Breaker(self.engine, work.destination, ACTOR)
        try:
            with lease:
                destination = destination_of(self.settings, work.destination)
                self._send(work, destination, lease, tally, breaker)
        except Unavailable as error:
            breaker.failed(error)
            self._retry(work, lease, REFUSED if error.code in SLOWLY else AWAY, error.message)
        except Refused as error:
            self._fail(work, lease, error.message)
        else:
            self._end(work, destination, lease, tally)

    def _end(self, work: Work, destination: Destination, lease: Lease, tally: Tally) -> None:
        """End an attempt in which the peer answered; what may pass is waited for first."""
        if tally.interrupted:
            self._give_back(work, lease)
        elif tally.later:
            self._retry(work, lease, REFUSED, tally.later[0])
        elif tally.refused:
            self._fail(work, lease, "; ".join(tally.refused))
        else:
            self._finish(work, destination, lease)

    def _send(
        self, work: Work, destination: Destination, lease: Lease, tally: Tally, breaker: Breaker
    ) -> None:
        vault = Vault.at_work(self.settings)
        files = [stored_outgoing(vault, result) for result in work.results]

        def note(answer: Answer) -> bool:
            if not tally.answered:
                tally.answered = True
                breaker.reached()
            self._note(work, answer, destination, tally)
            tally.interrupted = lease.lost or self.stopping.is_set() or not self._may_go_on(work)
            return not tally.interrupted

        if files:
            carrier_of(self.settings, destination)(files, note)

    def _note(self, work: Work, answer: Answer, destination: Destination, tally: Tally) -> None:
        if answer.verdict is Verdict.STORED:
            self._note_delivered(work, answer)
            return
        said = f"{destination.address}: {answer.outgoing.sop_instance_uid}: {answer}"
        if answer.verdict is Verdict.LATER:
            tally.later.append(said)
            return
        tally.refused.append(said)
        with transaction(self.engine) as session:
            studies.record_object_refused(
                session,
                work.delivery_id,
                answer.outgoing.sop_instance_uid,
                now=datetime.now(UTC),
                actor=ACTOR,
                detail=answer.as_detail(),
            )

    def _may_go_on(self, work: Work) -> bool:
        with snapshot(self.engine) as session:
            paused = destinations.is_paused(session, work.destination)
            return not paused and studies.is_pending(session, work.delivery_id)

    def _note_delivered(self, work: Work, answer: Answer) -> None:
        with transaction(self.engine) as session:
            studies.record_object_delivered(
                session,
                work.delivery_id,
                answer.outgoing.sop_instance_uid,
                now=datetime.now(UTC),
                actor=ACTOR,
                detail=answer.as_detail(),
                transfer_syntax_uid=answer.sent_in,
            )
            jobs.progress(session, work.job_id, work.owner)

    def _finish(self, work: Work, destination: Destination, lease: Lease) -> None:
        """End the delivery; where the destination is to vouch for it, the same job asks it next."""
        ask = destination.commitment
        with self._fenced(lease) as (session, now):
            studies.finish_delivery(session, work.delivery_id, now=now, actor=ACTOR, ask=ask)
            if ask:
                jobs.hand_back(session, work.job_id, work.owner, not_before=now)
            else:
                jobs.finish(session, work.job_id, work.owner)
        log.info("delivered", job=work.job_id, destination=work.destination, objects=len(work.results))

    def _give_back(self, work: Work, lease: Lease) -> None:
        with self._fenced(lease) as (session, now):
            studies.hand_back_delivery(session, work.delivery_id)
            jobs.hand_back(session, work.job_id, work.owner, not_before=now)

    def _retry(self, work: Work, lease: Lease, backoff: Backoff, error: str) -> None:
        wait = backoff.wait(work.attempts, random.random())
        if datetime.now(UTC) + wait > work.retry_until:
            self._fail(work, lease, f"given up after {work.attempts} attempts: {error}")
            return
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
