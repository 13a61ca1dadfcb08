"""Jobs as `cds-plugin jobs` shows them: what each is for, where it stands, how many were given up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVarTuple

from sqlalchemy import Select, and_, case, func, or_, select
from sqlalchemy.orm import Session

from cds_db.models import Commitment, Delivery, Job, Revision
from cds_db.stages import AskedState, CommitmentState, DeliveryState, JobKind, JobState, Stage

_Columns = TypeVarTuple("_Columns")
UNFINISHED = (JobState.WAITING, JobState.RUNNING, JobState.DEAD)


@dataclass(frozen=True, slots=True)
class JobLine:
    """One job and what it is for; `subject_state` is that of the revision, delivery or commitment."""

    id: int
    kind: JobKind
    state: JobState
    subject_state: str | None
    study_instance_uid: str | None
    revision: int | None
    destination: str | None
    calling_ae: str | None
    priority: int
    attempts: int
    lost: int
    reason: str | None
    not_before: datetime
    claimed_at: datetime | None
    lease_owner: str | None
    lease_until: datetime | None


def listed(
    session: Session,
    *,
    states: Sequence[JobState] = UNFINISHED,
    kind: JobKind | None = None,
    study: str | None = None,
    limit: int,
) -> list[JobLine]:
    """Return the newest jobs in these states, newest first."""
    wanted = _lines().where(Job.state.in_(states))
    if kind is not None:
        wanted = wanted.where(Job.kind == kind)
    if study is not None:
        wanted = wanted.where(Revision.study_instance_uid == study)
    return [_line(*row) for row in session.execute(wanted.order_by(Job.id.desc()).limit(limit))]


def shown(session: Session, job_id: int) -> JobLine | None:
    """Return one job, or None where there is none of this number."""
    row = session.execute(_lines().where(Job.id == job_id)).one_or_none()
    return None if row is None else _line(*row)


def counted(session: Session) -> Mapping[JobKind, int]:
    """Return how many dead letters there are of each kind; kinds without one are absent."""
    given_up = or_(
        Revision.stage == Stage.FAILED,
        Delivery.state == DeliveryState.FAILED,
        Delivery.commitment == AskedState.FAILED,
        Commitment.state == CommitmentState.FAILED,
    )
    wanted = joined(select(Job.kind, func.count())).where(Job.state == JobState.DEAD, given_up)
    return {kind: number for kind, number in session.execute(wanted.group_by(Job.kind))}


def _lines() -> Select[Job, Revision, Delivery, Commitment]:
    return joined(select(Job, Revision, Delivery, Commitment))


def joined(wanted: Select[*_Columns]) -> Select[*_Columns]:
    """Return a query about jobs with the revision, delivery or commitment that each is for."""
    whose = case((Job.kind == JobKind.ANALYSIS, Job.subject_id), else_=Delivery.revision_id)
    return (
        wanted.select_from(Job)
        .outerjoin(Delivery, and_(Job.kind == JobKind.DELIVERY, Delivery.id == Job.subject_id))
        .outerjoin(Revision, Revision.id == whose)
        .outerjoin(Commitment, and_(Job.kind == JobKind.COMMITMENT, Commitment.id == Job.subject_id))
    )


def _line(
    job: Job, revision: Revision | None, delivery: Delivery | None, asked: Commitment | None
) -> JobLine:
    said = [each.last_error for each in (job, delivery, asked) if each is not None and each.last_error]
    sender = asked.calling_ae if asked is not None else revision.calling_ae if revision is not None else None
    return JobLine(
        id=job.id,
        kind=job.kind,
        state=job.state,
        subject_state=_subject_state(revision, delivery, asked),
        study_instance_uid=revision.study_instance_uid if revision is not None else None,
        revision=revision.number if revision is not None else None,
        destination=delivery.destination if delivery is not None else None,
        calling_ae=sender,
        priority=job.priority,
        attempts=job.attempts,
        lost=job.lost,
        reason=said[0] if said else None,
        not_before=job.not_before,
        claimed_at=job.claimed_at,
        lease_owner=job.lease_owner,
        lease_until=job.lease_until,
    )


def _subject_state(
    revision: Revision | None, delivery: Delivery | None, asked: Commitment | None
) -> str | None:
    if asked is not None:
        return asked.state
    if delivery is not None:
        is_asking = delivery.state is DeliveryState.DELIVERED and delivery.commitment is not None
        return f"commitment {delivery.commitment}" if is_asking else delivery.state
    return None if revision is None else revision.stage
