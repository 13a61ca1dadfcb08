"""What waits although nobody works for it, and work for what no longer waits.

Every move is one transaction together with the job's, so neither exists unless something else wrote to the
database: an older version, a person. The sweeper looks all the same: nothing may wait for ever because of a
fault that nobody thought of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_never

from sqlalchemy import Select, and_, case, func, or_, select
from sqlalchemy.orm import Session

from cds_db import asking, commitment
from cds_db.analysis import fail_analysis
from cds_db.delivery import fail_delivery, settle
from cds_db.joblist import joined
from cds_db.locks import lock_study_of_job, locked_commitment, locked_delivery, locked_revision
from cds_db.models import Commitment, Delivery, Job, Revision
from cds_db.stages import (
    AT_WORK,
    AskedState,
    CommitmentState,
    DeliveryState,
    JobKind,
    JobState,
    Stage,
    check_move,
)
from cds_db.waits import Subject

OPEN = (JobState.WAITING, JobState.RUNNING)
NOBODY = "no job works for it any more"
NOTHING = "nothing waits for it any more"
FOUND_MOST = 100
"""Of each kind in one round of the sweeper."""


@dataclass(frozen=True, slots=True)
class Stranded:
    """A row that waits for nobody, or a job that works for nothing."""

    subject: Subject
    id: int


def stranded(session: Session) -> list[Stranded]:
    """Return what waits for nobody and who works for nothing."""
    found: list[Stranded] = []
    for subject, wanted in _queries():
        found += [Stranded(subject, each) for each in session.scalars(wanted.limit(FOUND_MOST))]
    return found


def end(session: Session, each: Stranded, *, now: datetime, actor: str) -> bool:
    """Give up what nobody works for, end the job that works for nothing; False where it is neither by now."""
    _lock(session, each)
    still = [query for subject, query in _queries(each.id) if subject is each.subject]
    if all(session.scalar(query) is None for query in still):
        return False
    match each.subject:
        case Subject.REVISION:
            _end_revision(session, each.id, now, actor)
        case Subject.DELIVERY:
            fail_delivery(session, each.id, NOBODY, now=now, actor=actor)
        case Subject.QUESTION:
            asking.give_up(session, each.id, now=now, actor=actor)
        case Subject.COMMITMENT:
            commitment.give_up(session, each.id, NOBODY, now=now, actor=actor, keep=True)
        case Subject.JOB:
            job = session.get_one(Job, each.id, populate_existing=True)
            check_move(job.state, JobState.DEAD)
            job.state, job.last_error = JobState.DEAD, NOTHING
        case Subject.DESTINATION:
            raise ValueError("a destination has no job")
        case _:
            assert_never(each.subject)
    return True


def _lock(session: Session, each: Stranded) -> None:
    match each.subject:
        case Subject.REVISION:
            locked_revision(session, each.id)
        case Subject.DELIVERY | Subject.QUESTION:
            locked_delivery(session, each.id)
        case Subject.COMMITMENT:
            locked_commitment(session, each.id)
        case _:
            lock_study_of_job(session, each.id)


def _end_revision(session: Session, revision_id: int, now: datetime, actor: str) -> None:
    """Fail an analysis that nobody does; let one go on that waits for deliveries and has none pending."""
    if session.get_one(Revision, revision_id).stage in AT_WORK:
        fail_analysis(session, revision_id, reason=NOBODY, now=now, actor=actor)
        return
    delivery = session.scalars(select(Delivery).where(Delivery.revision_id == revision_id).limit(1)).one()
    settle(session, delivery, now)


def _queries(only: int | None = None) -> Iterator[tuple[Subject, Select[Any]]]:
    """Yield the query for the ids of what is stranded, of each kind; of one row where its id is given."""
    revision = _some(Revision, only)
    idle = _without_work(revision, JobKind.ANALYSIS, Revision.id)
    yield Subject.REVISION, idle.where(Revision.stage.in_(AT_WORK))
    its = Delivery.revision_id == Revision.id
    is_pending = case((Delivery.state == DeliveryState.PENDING, 1), else_=0)
    pending = select(func.sum(is_pending)).where(its).scalar_subquery()
    yield Subject.REVISION, revision.where(Revision.stage == Stage.DELIVERING, pending == 0)
    delivery = _without_work(_some(Delivery, only), JobKind.DELIVERY, Delivery.id)
    yield Subject.DELIVERY, delivery.where(Delivery.state == DeliveryState.PENDING)
    yield Subject.QUESTION, delivery.where(Delivery.commitment == AskedState.PENDING)
    asked = _without_work(_some(Commitment, only), JobKind.COMMITMENT, Commitment.id)
    yield Subject.COMMITMENT, asked.where(Commitment.state == CommitmentState.PENDING)
    over = or_(
        and_(Job.kind == JobKind.ANALYSIS, Revision.stage.not_in(AT_WORK)),
        Delivery.state.not_in((DeliveryState.PENDING, DeliveryState.DELIVERED)),
        Commitment.state != CommitmentState.PENDING,
    )
    yield Subject.JOB, joined(_some(Job, only)).where(Job.state == JobState.WAITING, over)


def _some(table: Any, only: int | None) -> Select[Any]:
    wanted = select(table.id)
    return wanted if only is None else wanted.where(table.id == only)


def _without_work(wanted: Select[Any], kind: JobKind, subject_id: Any) -> Select[Any]:
    """Return the query for those of `wanted` that no open job works for.

    The job is found by its unique key. With NOT EXISTS over the open jobs PostgreSQL, whose statistics knew
    of none yet, compared each of 100,000 deliveries with each of as many jobs. So, too, with the deliveries
    of a revision.
    """
    its = and_(Job.kind == kind, Job.subject_id == subject_id)
    return wanted.outerjoin(Job, its).where(or_(Job.id.is_(None), Job.state.not_in(OPEN)))
