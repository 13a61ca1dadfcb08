"""What has waited longer than its limit: found by one query for each state, said once by the sweeper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, func, literal, null, select
from sqlalchemy.orm import Session

from cds_db import audit
from cds_db.events import Event, Outcome
from cds_db.joblist import joined
from cds_db.jobs import may_be_sent
from cds_db.locks import insert_if_absent
from cds_db.models import Commitment, Delivery, DestinationState, Job, Overdue, Revision, Study
from cds_db.resting import unsettled
from cds_db.stages import (
    AT_WORK,
    AskedState,
    CommitmentState,
    DeliveryState,
    JobKind,
    JobState,
    Stage,
)
from cds_db.waits import (
    AWAY_MOST,
    GRACE,
    HELD_MOST,
    HOLD_MOST,
    QUESTION_MOST,
    RECEIVING_MOST,
    REPORT_FOR,
    UNTAKEN_MOST,
    Subject,
)

NAMED_MOST = 200
"""Of each state, the longest waiting so many; a backlog of thousands has one cause."""


@dataclass(frozen=True, slots=True)
class Late:
    """A state that lasts longer than `limit`, the name of its constant in waits.py."""

    subject: Subject
    subject_id: str
    state: str
    since: datetime
    limit: str
    study_instance_uid: str | None = None
    destination: str | None = None


def overdue(session: Session, now: datetime) -> list[Late]:
    """Return everything that has waited for too long, the longest waiting of each state first."""
    return [
        Late(subject, str(key), str(state), since, limit, study, destination)
        for subject, limit, wanted in _queries(session, now)
        for key, state, since, study, destination in session.execute(wanted.limit(NAMED_MOST))
    ]


def say_new(session: Session, late: Sequence[Late], *, now: datetime, actor: str) -> list[Late]:
    """Audit what of `late` was not said yet and return it; forget what is over by now."""
    known = {(each.subject, each.subject_id, each.state): each for each in session.scalars(select(Overdue))}
    current = {(str(each.subject), each.subject_id, each.state): each for each in late}
    for key, row in known.items():
        if key not in current or current[key].since != row.since:
            session.execute(
                delete(Overdue).where(
                    Overdue.subject == key[0], Overdue.subject_id == key[1], Overdue.state == key[2]
                )
            )
    new = [each for key, each in current.items() if key not in known or known[key].since != each.since]
    return [each for each in new if _say(session, each, now, actor)]


def are_said(session: Session, late: Sequence[Late]) -> bool:
    """Return whether nothing of `late` is new and nothing that was said is over."""
    said = {
        (each.subject, each.subject_id, each.state, each.since) for each in session.scalars(select(Overdue))
    }
    return said == {(str(each.subject), each.subject_id, each.state, each.since) for each in late}


def _say(session: Session, late: Late, now: datetime, actor: str) -> bool:
    values = {
        "subject": str(late.subject),
        "subject_id": late.subject_id,
        "state": late.state,
        "since": late.since,
        "said_at": now,
    }
    if insert_if_absent(session, Overdue, values, Overdue.subject_id) is None:
        return False
    audit.append(
        session,
        event=Event.STATE_OVERDUE,
        actor=actor,
        now=now,
        study_instance_uid=late.study_instance_uid,
        outcome=Outcome.MINOR_FAILURE,
        detail={
            "subject": late.subject,
            "id": late.subject_id,
            "state": late.state,
            "limit": late.limit,
            "waits_seconds": round((now - late.since).total_seconds()),
            **({"destination": late.destination} if late.destination else {}),
        },
    )
    return True


def _queries(session: Session, now: datetime) -> Iterator[tuple[Subject, str, Select[Any]]]:
    """Yield (subject, limit, query of id, state, since, study, destination)."""
    entered = func.coalesce(Revision.moved_at, Revision.closed_at, Revision.opened_at)
    study = Revision.study_instance_uid
    revision = select(Revision.id, Revision.stage, entered, study, null())
    receiving = revision.where(Revision.stage == Stage.RECEIVING)
    yield Subject.REVISION, "RECEIVING_MOST", _late(receiving, entered, now - RECEIVING_MOST)
    put_off = revision.join(Job, is_analysis_of(Revision.id)).where(*_PUT_OFF)
    yield Subject.REVISION, "HELD_MOST", _late(put_off, entered, now - HELD_MOST)
    uid, held_since = Study.study_instance_uid, Study.conflict_at
    held = select(uid, literal(Stage.CONFLICT), held_since, uid, null()).where(held_since.is_not(None))
    yield Subject.REVISION, "HOLD_MOST", _late(held, held_since, now - HOLD_MOST)
    jobs_waiting = _jobs(JobState.WAITING, Job.not_before).where(*may_be_sent(session, now))
    yield Subject.JOB, "UNTAKEN_MOST", _late(jobs_waiting, Job.not_before, now - UNTAKEN_MOST)
    running = _jobs(JobState.RUNNING, Job.claimed_at)
    yield Subject.JOB, "HELD_MOST", _late(running, Job.claimed_at, now - HELD_MOST)
    delivery = select(Delivery.id, Delivery.state, Delivery.retry_until, study, Delivery.destination)
    pending = delivery.join(Revision).where(Delivery.state == DeliveryState.PENDING)
    yield Subject.DELIVERY, "retry_hours + GRACE", _late(pending, Delivery.retry_until, now - GRACE)
    question = select(Delivery.id, Delivery.commitment, Delivery.delivered_at, study, Delivery.destination)
    asking = question.join(Revision).where(Delivery.commitment == AskedState.PENDING)
    yield Subject.QUESTION, "QUESTION_MOST", _late(asking, Delivery.delivered_at, now - QUESTION_MOST)
    requested = Commitment.requested_at
    asked = select(Commitment.id, Commitment.state, requested, null(), null())
    unreported = asked.where(Commitment.state == CommitmentState.PENDING)
    yield Subject.COMMITMENT, "REPORT_FOR + GRACE", _late(unreported, requested, now - REPORT_FOR - GRACE)
    name, since = DestinationState.name, DestinationState.paused_at
    paused = select(name, literal("paused"), since, null(), name).where(since.is_not(None))
    yield Subject.DESTINATION, "HOLD_MOST", _late(paused, since, now - HOLD_MOST)
    missed = DestinationState.away_since
    away = select(name, literal("away"), missed, null(), name).where(
        DestinationState.left_alone_until.is_not(None), unsettled(name).exists()
    )
    yield Subject.DESTINATION, "AWAY_MOST", _late(away, missed, now - AWAY_MOST)


def _late(wanted: Any, since: Any, before: datetime) -> Select[Any]:
    query: Select[Any] = wanted.where(since < before).order_by(since)
    return query


def _jobs(state: JobState, since: Any) -> Select[Any]:
    wanted = select(Job.id, Job.state, since, Revision.study_instance_uid, Delivery.destination)
    return joined(wanted).where(Job.state == state)


_PUT_OFF = (Job.state == JobState.WAITING, Job.last_error.is_not(None))
"""An analysis that was tried and waits for something outside."""


def put_off_too_long(session: Session, before: datetime, limit: int) -> list[int]:
    """Return the analysis jobs that have been put off since `before` for what is missing outside."""
    entered = func.coalesce(Revision.moved_at, Revision.closed_at)
    wanted = select(Job.id).join(Revision, is_analysis_of(Revision.id)).where(*_PUT_OFF, entered < before)
    return list(session.scalars(wanted.where(Revision.stage.in_(AT_WORK)).limit(limit)))


def is_analysis_of(revision_id: Any) -> ColumnElement[bool]:
    """Return whether a job is the analysis of this revision."""
    return and_(Job.kind == JobKind.ANALYSIS, Job.subject_id == revision_id)
