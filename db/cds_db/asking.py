"""Storage commitment as user: what a destination is asked to vouch for, and what it answered.

A request is one transaction UID; a later one asks only for what no answer vouched for yet. What the
destination says it does not have is sent again first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from cds_db.columns import Json
from cds_db.commitment import FAILURES_IN_AUDIT, Reference
from cds_db.delivery import DEFAULT_RETRY, time_is_over
from cds_db.events import Event, Outcome
from cds_db.locks import locked_delivery
from cds_db.models import AskedCommitment, DeliveredObject, Delivery, Job, Result
from cds_db.moves import shortened
from cds_db.stages import AskedState, JobKind, JobState, check_move
from cds_db.trail import note

TIMES_ASKED = 5
"""A destination that does not vouch after so many questions will not: somebody has to look."""
ANSWER_WITHIN = timedelta(hours=1)
"""PS3.4 annex J sets no limit; an archive may write to tape first. Then it is asked again."""
NO_SUCH_INSTANCE = 0x0112
"""Failure Reason (0008,1197): the destination does not have it, so it is sent again."""


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask now; `lost` are results that the destination says it does not have."""

    references: tuple[Reference, ...]
    lost: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """The destination vouches for everything, or was given up: nothing is left to be asked."""

    state: AskedState


@dataclass(frozen=True, slots=True)
class Waiting:
    """A question is open; ask anew where it has no answer by then."""

    until: datetime


@dataclass(frozen=True, slots=True)
class CommitmentAnswer:
    """An N-EVENT-REPORT: what is vouched for, and why the rest is not (Failure Reason by UID)."""

    transaction_uid: str
    committed: frozenset[str]
    failed: Mapping[str, int]


def next_question(session: Session, delivery_id: int, now: datetime) -> Question | Settled | Waiting:
    """Return what is to be done about the commitment of a delivery."""
    delivery = locked_delivery(session, delivery_id)
    if delivery.commitment is not AskedState.PENDING:
        return Settled(delivery.commitment or AskedState.COMMITTED)
    newest = session.scalars(
        select(AskedCommitment)
        .where(AskedCommitment.delivery_id == delivery_id)
        .order_by(AskedCommitment.asked_at.desc())
        .limit(1),
        execution_options={"populate_existing": True},
    ).one_or_none()
    if newest is not None and newest.answered_at is None and now < newest.asked_at + ANSWER_WITHIN:
        return Waiting(newest.asked_at + ANSWER_WITHIN)
    wanted = (
        select(Result, DeliveredObject.commitment_failure)
        .join(DeliveredObject, DeliveredObject.sop_instance_uid == Result.sop_instance_uid)
        .where(DeliveredObject.delivery_id == delivery_id, DeliveredObject.committed_at.is_(None))
        .order_by(Result.sop_instance_uid)
    )
    rows = session.execute(wanted).all()
    return Question(
        tuple(Reference(result.sop_class_uid, result.sop_instance_uid) for result, _ in rows),
        tuple(result for result, failure in rows if failure == NO_SUCH_INSTANCE),
    )


def record_asked(
    session: Session, delivery_id: int, transaction_uid: str, *, now: datetime, actor: str
) -> None:
    """Note a question before it is sent: its answer may come at once, and to another process."""
    delivery = locked_delivery(session, delivery_id)
    delivery.asked += 1
    session.add(AskedCommitment(transaction_uid=transaction_uid, delivery_id=delivery_id, asked_at=now))
    detail: Mapping[str, Json] = {"transaction_uid": transaction_uid, "asked": delivery.asked}
    note(session, delivery, Event.COMMITMENT_ASKED, now=now, actor=actor, detail=detail)


def record_unanswered(
    session: Session,
    delivery_id: int,
    transaction_uid: str | None,
    error: str,
    *,
    away: bool,
    now: datetime,
    actor: str,
    retry_for: timedelta = DEFAULT_RETRY,
) -> None:
    """Note that a question could not be asked, or was refused; None: it was not even noted as asked.

    It counts, unless the destination is `away` and the delivery's time is not over. Where that begins anew,
    it is as long as the rule says, else `retry_for`.
    """
    delivery = locked_delivery(session, delivery_id)
    delivery.last_error = shortened(error)
    if delivery.retry_until is None:
        delivery.retry_until = time_is_over(delivery, now, retry_for)
    counts = not away or now > delivery.retry_until
    delivery.asked += counts - (transaction_uid is not None)
    if transaction_uid is not None:
        session.execute(
            update(AskedCommitment)
            .where(AskedCommitment.transaction_uid == transaction_uid, AskedCommitment.answered_at.is_(None))
            .values(answered_at=now, committed=0, failed=0),
            execution_options={"synchronize_session": False},
        )
    note(
        session,
        delivery,
        Event.COMMITMENT_MISSED,
        now=now,
        actor=actor,
        detail={"error": delivery.last_error, "asked": delivery.asked},
        outcome=Outcome.MINOR_FAILURE,
    )


def record_sent_again(session: Session, delivery_id: int, sop_instance_uid: str) -> None:
    """Forget that the destination did not have an object: it was sent again."""
    locked_delivery(session, delivery_id)
    session.execute(
        update(DeliveredObject)
        .where(
            DeliveredObject.delivery_id == delivery_id,
            DeliveredObject.sop_instance_uid == sop_instance_uid,
        )
        .values(commitment_failure=None),
        execution_options={"synchronize_session": False},
    )


def record_answer(session: Session, answer: CommitmentAnswer, *, now: datetime, actor: str) -> bool:
    """Note what a destination answered, once; False where nobody asked that.

    The deliverer is woken for what follows from it. A late answer counts, too.
    """
    wanted = select(AskedCommitment.delivery_id).where(
        AskedCommitment.transaction_uid == answer.transaction_uid
    )
    delivery_id = session.scalar(wanted)
    if delivery_id is None:
        return False
    delivery = locked_delivery(session, delivery_id)
    asked = session.get_one(AskedCommitment, answer.transaction_uid, populate_existing=True)
    if asked.answered_at is not None and asked.committed:
        return True
    committed, failed = _note_objects(session, delivery_id, answer, now)
    asked.answered_at, asked.committed, asked.failed = now, committed, len(failed)
    _note_answer(session, delivery, answer.transaction_uid, committed, failed, now=now, actor=actor)
    _settle(session, delivery)
    _wake(session, delivery_id, now)
    return True


def give_up(session: Session, delivery_id: int, *, now: datetime, actor: str) -> None:
    """Note that a destination will not be asked again; what it took stays delivered."""
    delivery = locked_delivery(session, delivery_id)
    _move(delivery, AskedState.FAILED)
    delivery.last_error = delivery.last_error or "the destination does not vouch for every object"
    note(
        session,
        delivery,
        Event.COMMITMENT_GIVEN_UP,
        now=now,
        actor=actor,
        detail={"error": delivery.last_error, "asked": delivery.asked},
        outcome=Outcome.SERIOUS_FAILURE,
    )


def _note_objects(
    session: Session, delivery_id: int, answer: CommitmentAnswer, now: datetime
) -> tuple[int, dict[str, int]]:
    wanted = select(DeliveredObject).where(DeliveredObject.delivery_id == delivery_id)
    objects: Sequence[DeliveredObject] = session.scalars(
        wanted, execution_options={"populate_existing": True}
    ).all()
    committed = 0
    failed: dict[str, int] = {}
    for each in objects:
        if each.sop_instance_uid in answer.committed:
            each.committed_at, each.commitment_failure = each.committed_at or now, None
            committed += 1
        elif each.sop_instance_uid in answer.failed and each.committed_at is None:
            each.commitment_failure = failed[each.sop_instance_uid] = answer.failed[each.sop_instance_uid]
    session.flush()
    return committed, failed


def _note_answer(
    session: Session,
    delivery: Delivery,
    transaction_uid: str,
    committed: int,
    failed: Mapping[str, int],
    *,
    now: datetime,
    actor: str,
) -> None:
    some: Collection[tuple[str, int]] = list(failed.items())[:FAILURES_IN_AUDIT]
    detail: Mapping[str, Json] = {
        "transaction_uid": transaction_uid,
        "committed": committed,
        "failed": len(failed),
        "failures": {uid: f"0x{reason:04X}" for uid, reason in some},
    }
    outcome = Outcome.MINOR_FAILURE if failed else Outcome.SUCCESS
    note(session, delivery, Event.COMMITMENT_ANSWERED, now=now, actor=actor, detail=detail, outcome=outcome)


def _settle(session: Session, delivery: Delivery) -> None:
    missing = select(DeliveredObject.sop_instance_uid).where(
        DeliveredObject.delivery_id == delivery.id, DeliveredObject.committed_at.is_(None)
    )
    if session.scalar(missing.limit(1)) is None:
        _move(delivery, AskedState.COMMITTED)
        delivery.last_error = None
        _end_dead(session, delivery.id)


def _move(delivery: Delivery, to: AskedState) -> None:
    if delivery.commitment is not None and delivery.commitment is not to:
        check_move(delivery.commitment, to)
    delivery.commitment = to


def _end_dead(session: Session, delivery_id: int) -> None:
    """Let the job of a question that was given up be done: the answer came all the same."""
    session.execute(
        update(Job)
        .where(Job.kind == JobKind.DELIVERY, Job.subject_id == delivery_id, Job.state == JobState.DEAD)
        .values(state=JobState.DONE, last_error=None),
        execution_options={"synchronize_session": False},
    )


def _wake(session: Session, delivery_id: int, now: datetime) -> None:
    session.execute(
        update(Job)
        .where(Job.kind == JobKind.DELIVERY, Job.subject_id == delivery_id, Job.state == JobState.WAITING)
        .values(not_before=now, woken_at=None),
        execution_options={"synchronize_session": False},
    )
