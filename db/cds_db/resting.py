"""Destinations that are away: after some failed associations one is left alone, then one delivery tries it.

Where nobody answers, each attempt costs an association timeout. So the deliveries wait together: none is
tried while the destination rests, one when the rest is over, and all at once when that one reached it. A
delivery whose time would be over before the rest is goes all the same: none is given up for waiting.

Whoever locks a destination's row does so before any study's, never after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, Update, and_, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from cds_db import audit
from cds_db.columns import Json
from cds_db.events import Event, Outcome
from cds_db.locks import insert_if_absent
from cds_db.models import Delivery, DestinationState, Job
from cds_db.moves import shortened
from cds_db.stages import AskedState, DeliveryState, JobKind, JobState

FAILURES_BEFORE_REST = 5
"""Associations that failed one after the other, whichever deliveries they were for."""
FIRST_REST = timedelta(seconds=5)
LONGEST_REST = timedelta(seconds=60)
"""The rest doubles with every trial that fails. A PACS that is back gets its results within this time."""
TRIAL = timedelta(seconds=60)
"""The one delivery on trial has so long; after that another one may try, for its process may be dead."""
UNSEEN = {"synchronize_session": False}


@dataclass(frozen=True, slots=True)
class Rest:
    """Since when a destination has not been reached, how often in a row, and until when it is left alone."""

    since: datetime
    until: datetime
    failures: int


def rest_after(failures: int) -> timedelta:
    """Return how long a destination is left alone after so many failures in a row; zero: not at all."""
    if failures < FAILURES_BEFORE_REST:
        return timedelta(0)
    doubled: timedelta = FIRST_REST * 2 ** min(failures - FAILURES_BEFORE_REST, 30)
    return min(doubled, LONGEST_REST)


def rest_of(session: Session, name: str) -> Rest | None:
    """Return the rest of a destination, None where it has none."""
    state = session.scalars(_state(name), execution_options={"populate_existing": True}).one_or_none()
    if state is None or state.away_since is None or state.left_alone_until is None:
        return None
    return Rest(state.away_since, state.left_alone_until, state.failures)


def was_missed(session: Session, name: str) -> bool:
    """Return whether the newest association with a destination failed."""
    return bool(session.scalar(select(DestinationState.failures).where(DestinationState.name == name)))


def left_alone(now: datetime) -> ColumnElement[bool]:
    """Return which deliveries, joined with their destination's state, wait for the end of a rest."""
    in_time = or_(Delivery.retry_until.is_(None), Delivery.retry_until > DestinationState.left_alone_until)
    return and_(DestinationState.left_alone_until > now, in_time)


def admit(session: Session, name: str, retry_until: datetime | None, now: datetime) -> bool:
    """Return whether a delivery may try its destination now; the first after a rest is the one on trial.

    Call before the study is locked.
    """
    rest = rest_of(session, name)
    if rest is None:
        return True
    if rest.until > now:
        return retry_until is not None and retry_until <= rest.until
    on_trial = session.scalar(
        update(DestinationState)
        .where(DestinationState.name == name, DestinationState.left_alone_until <= now)
        .values(left_alone_until=now + TRIAL)
        .returning(DestinationState.name),
        execution_options=UNSEEN,
    )
    return on_trial is not None


def withdraw(session: Session, name: str, now: datetime) -> None:
    """Let another delivery be the one on trial: the admitted one has nothing to do."""
    session.execute(
        update(DestinationState)
        .where(DestinationState.name == name, DestinationState.left_alone_until > now)
        .values(left_alone_until=now),
        execution_options=UNSEEN,
    )


def record_missed(session: Session, name: str, error: str, *, now: datetime, actor: str) -> None:
    """Count an association that failed; after FAILURES_BEFORE_REST in a row the destination is left alone."""
    state = locked_state(session, name)
    state.failures += 1
    state.away_since = state.away_since or now
    if not (rest := rest_after(state.failures)):
        return
    begins = state.left_alone_until is None
    state.left_alone_until = now + rest
    _wake_in_order(session, name)
    if begins:
        detail: Mapping[str, Json] = {
            "destination": name,
            "failures": state.failures,
            "error": shortened(error),
        }
        audit.append(
            session,
            event=Event.DESTINATION_LEFT_ALONE,
            actor=actor,
            now=now,
            detail=detail,
            outcome=Outcome.MINOR_FAILURE,
        )


def record_reached(session: Session, name: str, *, now: datetime, actor: str) -> None:
    """Note that the destination answered: what waited for it goes now."""
    state = locked_state(session, name)
    rested, since, failures = state.left_alone_until is not None, state.away_since, state.failures
    forget(state)
    if not rested or since is None:
        return
    put_off = or_(Job.not_before > now, Job.woken_at.is_not(None))
    session.execute(_free_jobs(name, put_off).values(not_before=now, woken_at=None), execution_options=UNSEEN)
    detail: Mapping[str, Json] = {
        "destination": name,
        "failures": failures,
        "away_seconds": round((now - since).total_seconds()),
    }
    audit.append(session, event=Event.DESTINATION_REACHED, actor=actor, now=now, detail=detail)


def forget(state: DestinationState) -> None:
    """End a rest: somebody wants the destination to be tried, or it answered."""
    state.failures, state.away_since, state.left_alone_until = 0, None, None


def locked_state(session: Session, name: str) -> DestinationState:
    """Return the row of a destination, locked until the transaction ends."""
    insert_if_absent(session, DestinationState, {"name": name}, DestinationState.name)
    wanted = _state(name).with_for_update()
    return session.scalars(wanted, execution_options={"populate_existing": True}).one()


def unsettled(name: str | InstrumentedAttribute[str]) -> Select[int]:
    """Return the query for the deliveries to a destination that are to be sent or to be vouched for."""
    return select(Delivery.id).where(
        Delivery.destination == name,
        (Delivery.state == DeliveryState.PENDING) | (Delivery.commitment == AskedState.PENDING),
    )


def _wake_in_order(session: Session, name: str) -> None:
    """Forget who was woken: the longest waiting is on trial next, not the one that failed just now."""
    woken = _free_jobs(name, Job.woken_at.is_not(None))
    session.execute(woken.values(woken_at=None), execution_options=UNSEEN)


def waiting_jobs(name: str) -> Update:
    """Return the update, values to be added, of the jobs that wait to send something to a destination."""
    return update(Job).where(*_waits(name))


def _free_jobs(name: str, only: ColumnElement[bool]) -> Update:
    """Return the same of some, without those that somebody changes right now.

    So no two writers wait in a circle, and of a long backlog only what says something else is written.
    """
    free = select(Job.id).where(*_waits(name), only).with_for_update(skip_locked=True)
    return update(Job).where(Job.id.in_(free))


def _waits(name: str) -> tuple[ColumnElement[bool], ...]:
    waiting = Job.state == JobState.WAITING
    return Job.kind == JobKind.DELIVERY, waiting, Job.subject_id.in_(unsettled(name))


def _state(name: str) -> Select[DestinationState]:
    return select(DestinationState).where(DestinationState.name == name)
