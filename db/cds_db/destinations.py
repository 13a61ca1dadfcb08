"""Destinations as a whole: paused and resumed, what waits for them, what was given up and is sent after all.

Names are those of the settings; one that the settings no longer have may still have deliveries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from cds_db import audit, resting
from cds_db.columns import Json
from cds_db.events import Event
from cds_db.locks import locked_delivery, locked_revision
from cds_db.models import Delivery, DestinationState, Job, Revision
from cds_db.moves import revive
from cds_db.resting import UNSEEN, Rest, locked_state
from cds_db.stages import (
    AskedState,
    DeliveryState,
    IllegalMove,
    JobKind,
    JobState,
    Stage,
    check_revival,
)
from cds_db.trail import note


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when a destination gets nothing, by whose wish, and why."""

    at: datetime
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class DestinationLine:
    """Where one destination stands; the counts are of deliveries, one per revision of a study."""

    name: str
    pause: Pause | None = None
    rest: Rest | None = None
    counts: Mapping[DeliveryState, int] = field(default_factory=dict)
    commitments: Mapping[AskedState, int] = field(default_factory=dict)
    oldest_pending: datetime | None = None
    last_delivered: datetime | None = None
    last_error: str | None = None


def is_paused(session: Session, name: str) -> bool:
    """Return whether nothing is sent to this destination now."""
    return _pause(session, name) is not None


def paused_names(session: Session) -> list[str]:
    """Return the names of the destinations that are paused."""
    return list(session.scalars(select(DestinationState.name).where(DestinationState.paused_at.is_not(None))))


def pause(session: Session, name: str, *, now: datetime, actor: str, reason: str) -> bool:
    """Send nothing more to this destination, also after a restart; False where it is paused already."""
    state = locked_state(session, name)
    if state.paused_at is not None:
        return False
    state.paused_at, state.paused_by, state.reason = now, actor, reason
    _note(session, Event.DESTINATION_PAUSED, name, now, actor, {"reason": reason})
    return True


def resume(session: Session, name: str, *, now: datetime, actor: str) -> bool:
    """Send again what waits, and give it all its time anew; False where it was not paused."""
    state = locked_state(session, name)
    if state.paused_at is None:
        return False
    state.paused_at = state.paused_by = state.reason = None
    resting.forget(state)
    waiting = resting.unsettled(name)
    session.execute(
        update(Delivery).where(Delivery.id.in_(waiting)).values(retry_until=None), execution_options=UNSEEN
    )
    session.execute(
        resting.waiting_jobs(name).values(not_before=now, woken_at=None), execution_options=UNSEEN
    )
    _note(session, Event.DESTINATION_RESUMED, name, now, actor, {})
    return True


def retry(
    session: Session, name: str, *, now: datetime, actor: str, study_instance_uid: str | None = None
) -> int:
    """Try at once what waits, and once more what was given up; return the number of deliveries.

    What a destination took and would not vouch for is sent again, too; one that is left alone is tried.
    """
    resting.forget(locked_state(session, name))
    wanted = (
        select(Delivery.id)
        .join(Revision, Revision.id == Delivery.revision_id)
        .where(
            Delivery.destination == name,
            Delivery.state.not_in((DeliveryState.HELD, DeliveryState.DISCARDED)),
            Revision.stage != Stage.CONFLICT,
        )
        .order_by(Revision.study_instance_uid, Revision.number)
    )
    if study_instance_uid is not None:
        wanted = wanted.where(Revision.study_instance_uid == study_instance_uid)
    done = (Delivery.state == DeliveryState.DELIVERED) & (
        Delivery.commitment.is_(None) | Delivery.commitment.in_((AskedState.COMMITTED, AskedState.DISCARDED))
    )
    return sum(
        retry_delivery(session, each, now, actor) for each in session.scalars(wanted.where(~done)).all()
    )


def lines(session: Session) -> dict[str, DestinationLine]:
    """Return where every destination stands that has a delivery or is paused, by name."""
    names = {*paused_names(session), *session.scalars(select(Delivery.destination).distinct())}
    return {name: _line(session, name) for name in sorted(names)}


def retry_delivery(session: Session, delivery_id: int, now: datetime, actor: str) -> bool:
    """Let one delivery, or the question for its commitment, begin anew; False where nothing leads back."""
    delivery = locked_delivery(session, delivery_id)
    if delivery.state is DeliveryState.FAILED:
        revision = locked_revision(session, delivery.revision_id)
        if revision.stage is not Stage.DELIVERING:
            try:
                revive(revision, Stage.DELIVERING, now)
            except IllegalMove:
                return False
        check_revival(delivery.state, DeliveryState.PENDING)
        delivery.state = DeliveryState.PENDING
    if delivery.commitment is AskedState.FAILED:
        delivery.commitment = AskedState.PENDING
    delivery.retry_until, delivery.asked = None, 0
    job = session.scalars(
        select(Job).where(Job.kind == JobKind.DELIVERY, Job.subject_id == delivery_id),
        execution_options={"populate_existing": True},
    ).one()
    if job.state is not JobState.RUNNING:
        job.state, job.attempts, job.lost = JobState.WAITING, 0, 0
        job.not_before, job.woken_at = now, None
    note(session, delivery, Event.DELIVERY_REVIVED, now=now, actor=actor, detail={})
    return True


def _line(session: Session, name: str) -> DestinationLine:
    mine = Delivery.destination == name
    counts = session.execute(select(Delivery.state, func.count()).where(mine).group_by(Delivery.state))
    asked = session.execute(
        select(Delivery.commitment, func.count())
        .where(mine, Delivery.commitment.is_not(None))
        .group_by(Delivery.commitment)
    )
    pending = mine & (Delivery.state == DeliveryState.PENDING)
    oldest = (
        select(func.min(Revision.closed_at))
        .join(Delivery, Delivery.revision_id == Revision.id)
        .where(pending)
    )
    newest_error = (
        select(Delivery.last_error)
        .where(mine, Delivery.last_error.is_not(None), Delivery.state != DeliveryState.DELIVERED)
        .order_by(Delivery.id.desc())
        .limit(1)
    )
    return DestinationLine(
        name=name,
        pause=_pause(session, name),
        rest=resting.rest_of(session, name),
        counts={state: number for state, number in counts},
        commitments={state: number for state, number in asked if state is not None},
        oldest_pending=session.scalar(oldest),
        last_delivered=session.scalar(select(func.max(Delivery.delivered_at)).where(mine)),
        last_error=session.scalar(newest_error),
    )


def _pause(session: Session, name: str) -> Pause | None:
    wanted = select(DestinationState).where(DestinationState.name == name)
    state = session.scalars(wanted, execution_options={"populate_existing": True}).one_or_none()
    if state is None or state.paused_at is None:
        return None
    return Pause(state.paused_at, state.paused_by or "", state.reason or "")


def _note(
    session: Session, event: Event, name: str, now: datetime, actor: str, detail: Mapping[str, Json]
) -> None:
    audit.append(session, event=event, actor=actor, now=now, detail={"destination": name, **detail})
