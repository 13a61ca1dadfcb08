"""Jobs as an administrator sees them, and what he does about those that were given up.

A dead letter is a job that was given up with its reason, and with it the analysis, the delivery, the question
for commitment or the commitment report that it was for. It stays so until somebody retries or discards it. A
job that a hold on its study stopped is dead too, and no dead letter: `release` decides about the study.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import assert_never

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from cds_db import asking, audit, commitment, jobs, resting
from cds_db.analysis import fail_analysis
from cds_db.columns import Json
from cds_db.delivery import discard_delivery, fail_delivery
from cds_db.destinations import retry_delivery
from cds_db.events import Event, Outcome
from cds_db.locks import lock_study_of_job, locked_delivery, locked_revision
from cds_db.models import Delivery, Instance, Job, Revision, RevisionPicture
from cds_db.moves import discard_revision, revive, shortened
from cds_db.stages import (
    AskedState,
    DeliveryState,
    JobKind,
    JobState,
    Stage,
    check_move,
    check_revival,
)
from cds_db.trail import note
from cds_db.waits import ANALYSIS_WITHIN, text_of


class Change(StrEnum):
    """What became of the wish to retry or discard a job."""

    RETRIED = "retried"
    DISCARDED = "discarded"
    UNKNOWN = "unknown"
    NOT_DEAD = "not_dead"
    RUNS = "runs"
    OVER = "over"
    """Done or discarded: nothing leads back."""
    ON_HOLD = "on_hold"
    SUPERSEDED = "superseded"
    """A newer revision analyses the same pictures."""
    FORGOTTEN = "forgotten"
    """What the requester asked for is no longer known: it must ask again."""


def retry(session: Session, job_id: int, *, now: datetime, actor: str) -> Change:
    """Let a job that was given up begin anew, and what it is for with it; one that waits is due at once.

    A destination that is left alone is tried; one that is paused stays so.
    """
    _end_rest(session, job_id)
    job = _locked(session, job_id)
    if job is None:
        return Change.UNKNOWN
    problem = _why_not(session, job, retry=True)
    if problem is not None:
        return problem
    if not _revive_subject(session, job, now, actor):
        return Change.FORGOTTEN if job.kind is JobKind.COMMITMENT else Change.OVER
    if job.state is not JobState.WAITING:
        check_revival(job.state, JobState.WAITING)
    job.state, job.attempts, job.lost = JobState.WAITING, 0, 0
    job.not_before, job.woken_at, job.last_error = now, None, None
    session.flush()
    return Change.RETRIED


def discard(session: Session, job_id: int, *, reason: str, now: datetime, actor: str) -> Change:
    """End a job that was given up, and what it is for, for good; nothing that is not dead."""
    job = _locked(session, job_id)
    if job is None:
        return Change.UNKNOWN
    problem = _why_not(session, job, retry=False)
    if problem is not None:
        return problem
    check_move(job.state, JobState.DISCARDED)
    job.state = JobState.DISCARDED
    why = f"discarded by {actor}: {reason}"
    whose = _discard_subject(session, job, why, now)
    study = whose.pop("study_instance_uid", None)
    detail: dict[str, Json] = {"job": job.id, "kind": job.kind, "reason": reason, "error": job.last_error}
    audit.append(
        session,
        event=Event.JOB_DISCARDED,
        actor=actor,
        now=now,
        study_instance_uid=str(study) if study else None,
        outcome=Outcome.MINOR_FAILURE,
        detail={**detail, **whose},
    )
    job.last_error = shortened(f"{why}; given up because: {job.last_error}" if job.last_error else why)
    return Change.DISCARDED


def bury_lost(session: Session, job_id: int, *, now: datetime, actor: str) -> str | None:
    """Make a job that took too many processes with it a dead letter; return why, None where it is none."""
    reason = jobs.bury_lost(session, job_id, now)
    job = None if reason is None else _locked(session, job_id)
    if job is None or reason is None:
        return None
    fail_subject(session, job, reason, now=now, actor=actor)
    return reason


def bury_put_off(session: Session, job_id: int, *, now: datetime, actor: str) -> bool:
    """Make an analysis that waits for what is missing outside a dead letter; False where it runs by now."""
    job = _locked(session, job_id)
    if job is None or job.state is not JobState.WAITING:
        return False
    check_move(job.state, JobState.DEAD)
    job.state = JobState.DEAD
    reason = f"put off for longer than {text_of(ANALYSIS_WITHIN)}: {job.last_error}"
    fail_subject(session, job, reason, now=now, actor=actor)
    return True


def fail_subject(session: Session, job: Job, reason: str, *, now: datetime, actor: str) -> None:
    """Give up what a locked job is for, where it still waits for it."""
    match job.kind:
        case JobKind.ANALYSIS:
            revision = locked_revision(session, job.subject_id)
            if revision.stage in (Stage.QUEUED, Stage.ANALYSING):
                fail_analysis(session, revision.id, reason=reason, now=now, actor=actor)
        case JobKind.DELIVERY:
            delivery = locked_delivery(session, job.subject_id)
            if delivery.state is DeliveryState.PENDING:
                fail_delivery(session, delivery.id, reason, now=now, actor=actor)
            elif delivery.commitment is AskedState.PENDING:
                delivery.last_error = reason
                asking.give_up(session, delivery.id, now=now, actor=actor)
        case JobKind.COMMITMENT:
            if commitment.asked(session, job.subject_id) is not None:
                commitment.give_up(session, job.subject_id, reason, now=now, actor=actor, keep=True)
        case _:
            assert_never(job.kind)


def _locked(session: Session, job_id: int) -> Job | None:
    lock_study_of_job(session, job_id)
    wanted = select(Job).where(Job.id == job_id).with_for_update()
    return session.scalars(wanted, execution_options={"populate_existing": True}).one_or_none()


def _end_rest(session: Session, job_id: int) -> None:
    """Have the destination of a delivery tried at once; its row is locked before any study."""
    its = and_(Job.kind == JobKind.DELIVERY, Job.subject_id == Delivery.id)
    name = session.scalar(select(Delivery.destination).join(Job, its).where(Job.id == job_id))
    if name is not None and resting.rest_of(session, name) is not None:
        resting.forget(resting.locked_state(session, name))


def _why_not(session: Session, job: Job, *, retry: bool) -> Change | None:
    """Return why nothing can be done about a locked job, None where it can."""
    match job.state:
        case JobState.RUNNING:
            return Change.RUNS if retry else Change.NOT_DEAD
        case JobState.WAITING:
            return None if retry else Change.NOT_DEAD
        case JobState.DONE | JobState.DISCARDED:
            return Change.OVER if retry else Change.NOT_DEAD
        case JobState.DEAD:
            return _why_not_dead(session, job, retry=retry)
        case _:
            assert_never(job.state)


def _why_not_dead(session: Session, job: Job, *, retry: bool) -> Change | None:
    if job.kind is JobKind.COMMITMENT:
        return None
    if job.kind is JobKind.DELIVERY:
        delivery = locked_delivery(session, job.subject_id)
        if delivery.state is DeliveryState.HELD:
            return Change.ON_HOLD
        is_given_up = delivery.state is DeliveryState.FAILED or delivery.commitment is AskedState.FAILED
        return None if retry or is_given_up else Change.NOT_DEAD
    revision = locked_revision(session, job.subject_id)
    if revision.stage is Stage.CONFLICT:
        return Change.ON_HOLD
    if revision.stage is not Stage.FAILED:
        return Change.OVER
    return Change.SUPERSEDED if retry and _is_superseded(session, revision) else None


def _is_superseded(session: Session, revision: Revision) -> bool:
    """Return whether a newer revision took up pictures that were received with this one."""
    again = select(RevisionPicture.instance_id).where(RevisionPicture.revision_id == revision.id)
    mine = or_(Instance.revision_id == revision.id, Instance.id.in_(again))
    newer = (
        select(RevisionPicture.instance_id)
        .join(Revision, Revision.id == RevisionPicture.revision_id)
        .join(Instance, Instance.id == RevisionPicture.instance_id)
        .where(
            Revision.study_instance_uid == revision.study_instance_uid,
            Revision.number > revision.number,
            mine,
        )
    )
    return session.scalar(newer.limit(1)) is not None


def _revive_subject(session: Session, job: Job, now: datetime, actor: str) -> bool:
    match job.kind:
        case JobKind.ANALYSIS:
            revision = locked_revision(session, job.subject_id)
            if job.state is JobState.DEAD:
                revive(revision, Stage.QUEUED, now)
            note(session, revision, Event.ANALYSIS_REVIVED, now=now, actor=actor, detail={"job": job.id})
            return True
        case JobKind.DELIVERY:
            return retry_delivery(session, job.subject_id, now, actor)
        case JobKind.COMMITMENT:
            return commitment.revive(session, job.subject_id, now=now, actor=actor)
        case _:
            assert_never(job.kind)


def _discard_subject(session: Session, job: Job, why: str, now: datetime) -> dict[str, Json]:
    """End what a locked job is for; return what the audit says of it."""
    match job.kind:
        case JobKind.ANALYSIS:
            revision = locked_revision(session, job.subject_id)
            discard_revision(revision, why, now)
            return {"study_instance_uid": revision.study_instance_uid, "revision": revision.number}
        case JobKind.DELIVERY:
            delivery = discard_delivery(session, job.subject_id, why, now=now)
            revision = session.get_one(Revision, delivery.revision_id)
            return {
                "study_instance_uid": revision.study_instance_uid,
                "revision": revision.number,
                "destination": delivery.destination,
            }
        case JobKind.COMMITMENT:
            return {"transaction_uid": commitment.discard(session, job.subject_id)}
        case _:
            assert_never(job.kind)
