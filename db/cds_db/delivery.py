"""From results to a destination that has taken every one of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import Select, exists, select
from sqlalchemy.orm import Session

from cds_db.columns import Json
from cds_db.events import Event, Outcome
from cds_db.locks import insert_if_absent, locked_delivery
from cds_db.models import DeliveredObject, Delivery, Result, Revision
from cds_db.moves import move, move_delivery, shortened
from cds_db.stages import AskedState, DeliveryState, IllegalMove, Stage, check_move
from cds_db.trail import note

DEFAULT_RETRY = timedelta(hours=72)
"""Long enough for a PACS that is away over a weekend."""


def start_delivery(
    session: Session,
    delivery_id: int,
    *,
    now: datetime,
    actor: str,
    retry_for: timedelta = DEFAULT_RETRY,
) -> None:
    """Note that an attempt begins. Raises IllegalMove unless the delivery is pending.

    `retry_for` is how long the destination's settings want it to be tried where no rule says; it counts from
    the first attempt.
    """
    delivery = _pending(session, delivery_id)
    delivery.attempts += 1
    if delivery.retry_until is None:
        delivery.retry_until = time_is_over(delivery, now, retry_for)
    note(
        session, delivery, Event.DELIVERY_STARTED, now=now, actor=actor, detail={"attempt": delivery.attempts}
    )


def time_is_over(delivery: Delivery, now: datetime, retry_for: timedelta) -> datetime:
    """Return until when a delivery is tried whose time begins now."""
    wanted = delivery.retry_hours
    return now + (retry_for if wanted is None else timedelta(hours=wanted))


def delivery_objects(session: Session, delivery_id: int) -> tuple[Delivery, list[Result]]:
    """Return the delivery and the results of its kinds that the destination has not taken yet.

    Raises IllegalMove where nothing may be sent: it is held, given up, or done.
    """
    delivery = _pending(session, delivery_id)
    taken = exists().where(
        DeliveredObject.delivery_id == delivery_id,
        DeliveredObject.sop_instance_uid == Result.sop_instance_uid,
    )
    wanted = select(Result).where(Result.revision_id == delivery.revision_id, ~taken)
    if delivery.kinds is not None:
        wanted = wanted.where(Result.kind.in_(delivery.kinds.split()))
    return delivery, list(session.scalars(wanted.order_by(Result.created_at, Result.sop_instance_uid)))


def is_pending(session: Session, delivery_id: int) -> bool:
    """Return whether this delivery may still be sent; ask between objects, so that a hold ends it soon."""
    return session.scalar(select(Delivery.state).where(Delivery.id == delivery_id)) is DeliveryState.PENDING


def record_object_delivered(
    session: Session,
    delivery_id: int,
    sop_instance_uid: str,
    *,
    now: datetime,
    actor: str,
    detail: Mapping[str, Json] | None = None,
    transfer_syntax_uid: str | None = None,
) -> None:
    """Note that the destination took an object. What was sent is recorded whatever the delivery's state."""
    delivery = locked_delivery(session, delivery_id)
    values = {
        "delivery_id": delivery_id,
        "sop_instance_uid": sop_instance_uid,
        "delivered_at": now,
        "transfer_syntax_uid": transfer_syntax_uid,
    }
    insert_if_absent(session, DeliveredObject, values, DeliveredObject.delivery_id)
    note(
        session,
        delivery,
        Event.OBJECT_DELIVERED,
        now=now,
        actor=actor,
        detail=detail or {},
        sop_instance_uid=sop_instance_uid,
    )


def record_object_refused(
    session: Session,
    delivery_id: int,
    sop_instance_uid: str,
    *,
    now: datetime,
    actor: str,
    detail: Mapping[str, Json],
) -> None:
    """Note that the destination will not take an object, and why."""
    delivery = locked_delivery(session, delivery_id)
    note(
        session,
        delivery,
        Event.OBJECT_REFUSED,
        now=now,
        actor=actor,
        detail=detail,
        outcome=Outcome.SERIOUS_FAILURE,
        sop_instance_uid=sop_instance_uid,
    )


def record_delivery_attempt(
    session: Session, delivery_id: int, error: str, *, now: datetime, actor: str
) -> None:
    """Note that an attempt failed and will be repeated."""
    delivery = locked_delivery(session, delivery_id)
    delivery.last_error = shortened(error)
    note(
        session,
        delivery,
        Event.DELIVERY_RETRIED,
        now=now,
        actor=actor,
        detail={"error": delivery.last_error, "attempt": delivery.attempts},
        outcome=Outcome.MINOR_FAILURE,
    )


def hand_back_delivery(session: Session, delivery_id: int) -> None:
    """Count an attempt that was begun as none: the process was asked to stop, or the destination paused."""
    locked_delivery(session, delivery_id).attempts -= 1


def finish_delivery(
    session: Session, delivery_id: int, *, now: datetime, actor: str, ask: bool = False
) -> None:
    """End a delivery; the revision is complete when it was the last one.

    `ask`: commitment is asked for next, where anything was delivered.
    Raises IllegalMove unless it is pending and its destination took every object.
    """
    delivery, missing = delivery_objects(session, delivery_id)
    if missing:
        raise IllegalMove(f"{len(missing)} objects of delivery {delivery_id} were not taken yet")
    move_delivery(delivery, DeliveryState.DELIVERED)
    delivery.delivered_at = now
    delivery.last_error = None
    if ask and session.scalar(_taken(delivery_id).limit(1)) is not None:
        delivery.commitment = AskedState.PENDING
    note(session, delivery, Event.DELIVERY_FINISHED, now=now, actor=actor, detail={})
    settle(session, delivery, now)


def fail_delivery(session: Session, delivery_id: int, error: str, *, now: datetime, actor: str) -> None:
    """Give a delivery up for good: the destination will never take an object. Raises IllegalMove."""
    delivery = _pending(session, delivery_id)
    move_delivery(delivery, DeliveryState.FAILED)
    delivery.last_error = shortened(error)
    note(
        session,
        delivery,
        Event.DELIVERY_FAILED,
        now=now,
        actor=actor,
        detail={"error": delivery.last_error},
        outcome=Outcome.SERIOUS_FAILURE,
    )
    settle(session, delivery, now)


def discard_delivery(session: Session, delivery_id: int, why: str, *, now: datetime) -> Delivery:
    """End a delivery that was given up, or the question for its commitment. Raises IllegalMove.

    The revision stands as discarded once none of its deliveries is pending or failed.
    """
    delivery = locked_delivery(session, delivery_id)
    if delivery.state is DeliveryState.DELIVERED and delivery.commitment is AskedState.FAILED:
        check_move(delivery.commitment, AskedState.DISCARDED)
        delivery.commitment = AskedState.DISCARDED
    else:
        move_delivery(delivery, DeliveryState.DISCARDED)
        settle(session, delivery, now)
    delivery.last_error = shortened(why)
    return delivery


def _taken(delivery_id: int) -> Select[str]:
    return select(DeliveredObject.sop_instance_uid).where(DeliveredObject.delivery_id == delivery_id)


def _pending(session: Session, delivery_id: int) -> Delivery:
    delivery = locked_delivery(session, delivery_id)
    if delivery.state is not DeliveryState.PENDING:
        raise IllegalMove(f"delivery {delivery_id} is {delivery.state}")
    return delivery


def settle(session: Session, delivery: Delivery, now: datetime) -> None:
    """Move the revision of a locked delivery once none of its deliveries is pending."""
    session.flush()
    states = set(session.scalars(select(Delivery.state).where(Delivery.revision_id == delivery.revision_id)))
    if DeliveryState.PENDING in states:
        return
    revision = session.get_one(Revision, delivery.revision_id)
    if DeliveryState.FAILED in states:
        to, revision.failure = Stage.FAILED, "not every destination took the results"
    elif DeliveryState.DISCARDED in states:
        to, revision.failure = Stage.DISCARDED, "a delivery was discarded"
    else:
        to, revision.failure = Stage.COMPLETE, None
    if revision.stage is not to:
        move(revision, to, now)
