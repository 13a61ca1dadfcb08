"""Storage commitment as SCU (PS3.4 annex J): ask a destination whether it keeps what it took.

The answer comes on the association of the question, or later on one that the destination opens to our
listener; whichever process hears it notes it in the database, and the delivery's job goes on from there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event as Signal

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import build_context, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from cds_db import asking, jobs
from cds_db.asking import TIMES_ASKED, Question, Settled, Waiting
from cds_db.models import Delivery, Job, Result
from cds_db.session import transaction
from cds_db.stages import AskedState
from cds_plugin.commitment.request import (
    PUSH_MODEL,
    PUSH_MODEL_SYNTAXES,
    REQUEST_STORAGE_COMMITMENT,
    WELL_KNOWN_INSTANCE,
)
from cds_plugin.config import Destination, Settings
from cds_plugin.deliver.answering import AnswerHandler
from cds_plugin.deliver.backoff import AWAY, REFUSED
from cds_plugin.deliver.breaker import Breaker
from cds_plugin.deliver.carrier import carrier_of, destination_of, retry_for
from cds_plugin.deliver.sender import GONE, Answer, association_with, peer_of, stored_outgoing
from cds_plugin.errors import CdsError, Refused, Unavailable
from cds_plugin.lease import Lease, LeaseLost
from cds_plugin.sealing.vault import Vault

log = structlog.get_logger()

ACTOR = "deliver"
SAME_ASSOCIATION_SECONDS = 3.0
"""How long an answer is waited for on the association of the question; it may come later on another one."""
SUCCESS = 0x0000
COMMITMENT_REFUSED = "commitment_refused"
"""The code of the failure: the destination is there and does not want to be asked."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Does the commitment of one claimed delivery job: a step each time that the job is due."""

    settings: Settings
    engine: Engine
    breaker: Breaker

    def run(self, job_id: int, owner: str, delivery_id: int) -> None:
        """Ask, wait, ask again or end, as the database says; the job is handed back or finished."""
        with Lease(self.engine, job_id, owner) as lease:
            try:
                self._step(lease, delivery_id)
            except CdsError as error:
                self._missed(lease, delivery_id, None, error)
            except LeaseLost:
                log.warning("commitment left", job=job_id, reason="lease lost")

    def _step(self, lease: Lease, delivery_id: int) -> None:
        now = datetime.now(UTC)
        with transaction(self.engine) as session:
            lease.fence(session)
            state = asking.next_question(session, delivery_id, now)
            delivery = session.get_one(Delivery, delivery_id)
            if isinstance(state, Question) and delivery.asked >= TIMES_ASKED:
                asking.give_up(session, delivery_id, now=now, actor=ACTOR)
                state = Settled(AskedState.FAILED)
            if not isinstance(state, Question):
                self._put_down(session, lease, delivery_id, state, now)
        if isinstance(state, Question):
            self._ask(lease, delivery_id, destination_of(self.settings, self.breaker.destination), state)
        else:
            self.breaker.withdraw()

    def _ask(self, lease: Lease, delivery_id: int, destination: Destination, question: Question) -> None:
        self._send_again(delivery_id, destination, question.lost)
        lease.check()
        transaction_uid = str(generate_uid(prefix=None))
        with transaction(self.engine) as session:
            lease.fence(session)
            asking.record_asked(session, delivery_id, transaction_uid, now=datetime.now(UTC), actor=ACTOR)
        try:
            self._over_association(destination, transaction_uid, question)
        except CdsError as error:
            self._missed(lease, delivery_id, transaction_uid, error)
            return
        self.breaker.reached()
        self._step_after_question(lease, delivery_id)

    def _step_after_question(self, lease: Lease, delivery_id: int) -> None:
        """Go on where the answer came meanwhile; else wait for it. One transaction: none slips between."""
        now = datetime.now(UTC)
        with transaction(self.engine) as session:
            lease.fence(session)
            state = asking.next_question(session, delivery_id, now)
            self._put_down(session, lease, delivery_id, state, now)

    def _put_down(
        self,
        session: Session,
        lease: Lease,
        delivery_id: int,
        state: Question | Settled | Waiting,
        now: datetime,
    ) -> None:
        """Finish the job, or hand it back until it is due again."""
        job_id, owner = lease.job_id, lease.owner
        match state:
            case Settled(AskedState.FAILED):
                reason = session.get_one(Delivery, delivery_id).last_error
                jobs.bury(session, job_id, owner, reason or "not vouched for")
            case Settled():
                jobs.finish(session, job_id, owner)
            case Waiting(until):
                jobs.hand_back(session, job_id, owner, not_before=until)
            case Question():
                attempts = session.get_one(Job, job_id, populate_existing=True).attempts
                later = now + REFUSED.wait(attempts, random.random())
                jobs.retry_later(session, job_id, owner, not_before=later, error="not vouched for yet")
        lease.end()

    def _over_association(self, destination: Destination, transaction_uid: str, question: Question) -> None:
        peer = peer_of(self.settings, destination)
        heard = Signal()
        handler = AnswerHandler(self.engine)

        def hear(event: Event) -> tuple[int, None]:
            status, nothing = handler.answer(event, destination.ae_title)
            heard.set()
            return status, nothing

        contexts = [build_context(PUSH_MODEL, [*PUSH_MODEL_SYNTAXES])]
        handlers: list[evt.EventHandlerType] = [(evt.EVT_N_EVENT_REPORT, hear)]
        calling = self.settings.listener.ae_title
        with association_with(peer, calling, contexts, handlers=handlers) as association:
            if not association.accepted_contexts:
                raise Refused(
                    "no_commitment", f"{peer} offers no storage commitment", "Set commitment = false for it."
                )
            _send(association, str(peer), _information(transaction_uid, question))
            heard.wait(SAME_ASSOCIATION_SECONDS)

    def _send_again(self, delivery_id: int, destination: Destination, lost: tuple[Result, ...]) -> None:
        """Send what the destination says it does not have, though it took it once."""
        if not lost:
            return
        vault = Vault.at_work(self.settings)
        files = [stored_outgoing(vault, each) for each in lost]

        def note(answer: Answer) -> bool:
            if answer.stored:
                with transaction(self.engine) as session:
                    asking.record_sent_again(session, delivery_id, answer.outgoing.sop_instance_uid)
            return True

        carrier_of(self.settings, destination)(files, note)

    def _missed(self, lease: Lease, delivery_id: int, transaction_uid: str | None, error: CdsError) -> None:
        self.breaker.failed(error)
        now = datetime.now(UTC)
        is_away = isinstance(error, Unavailable) and error.code != COMMITMENT_REFUSED
        backoff = AWAY if is_away else REFUSED
        with transaction(self.engine) as session:
            lease.fence(session)
            asking.record_unanswered(
                session,
                delivery_id,
                transaction_uid,
                error.message,
                away=is_away,
                now=now,
                actor=ACTOR,
                retry_for=retry_for(self.settings, self.breaker.destination),
            )
            attempts = session.get_one(Job, lease.job_id, populate_existing=True).attempts
            jobs.retry_later(
                session,
                lease.job_id,
                lease.owner,
                not_before=now + backoff.wait(attempts, random.random()),
                error=error.message,
            )
        lease.end()


def _information(transaction_uid: str, question: Question) -> Dataset:
    """Return the Action Information (PS3.4 table J.3-2)."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = list(_items(question))
    return information


def _items(question: Question) -> Iterator[Dataset]:
    for each in question.references:
        item = Dataset()
        item.ReferencedSOPClassUID = each.sop_class_uid
        item.ReferencedSOPInstanceUID = each.sop_instance_uid
        yield item


def _send(association: Association, who: str, information: Dataset) -> None:
    try:
        answer, _ = association.send_n_action(
            information, REQUEST_STORAGE_COMMITMENT, PUSH_MODEL, WELL_KNOWN_INSTANCE
        )
    except (RuntimeError, ValueError) as error:
        raise Unavailable(GONE, f"{who} went away when it was asked", "Look at its log.") from error
    if "Status" not in answer:
        raise Unavailable(GONE, f"{who} gave no answer when it was asked", "Look at its log.")
    if answer.Status != SUCCESS:
        raise Unavailable(
            COMMITMENT_REFUSED,
            f"{who} answered the request for storage commitment with status 0x{answer.Status:04X}",
            "Look at its log.",
        )
