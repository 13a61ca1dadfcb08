"""Work under a lease. The database holds the truth; a message of the broker only says "look at this job".

Every function locks the job's study first (see locks.py), so it may stand before or after the functions of
studies.py in one transaction. Clocks of several machines must agree to within a fraction of a lease.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, or_, select, update
from sqlalchemy.orm import Session

from cds_db.locks import lock_study_of_job
from cds_db.models import Delivery, DestinationState, Job, Revision
from cds_db.moves import shortened
from cds_db.resting import left_alone
from cds_db.stages import JobKind, JobState, check_move
from cds_db.turns import MEMORY, Waiting, next_in_turn

MAX_ATTEMPTS = 5
"""Claims without progress after which one picture is given up: what kills five workers is not bad luck."""
LOST_MOST: Mapping[JobKind, int] = {
    JobKind.ANALYSIS: MAX_ATTEMPTS + 2,
    JobKind.DELIVERY: MAX_ATTEMPTS,
    JobKind.COMMITMENT: MAX_ATTEMPTS,
}
"""So many processes in a row may die with a job, or lose its lease; then nobody else gets it. An analysis has
two more: its worker gives up single pictures first."""
WAKE_AGAIN_SECONDS = 15
"""A job that nobody claimed by then is woken again: its message was lost, or its worker died with it."""


_UNSEEN = {"synchronize_session": False}


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that `owner` may do now; `subject_id` is revision or delivery, `attempts` counts this one."""

    job_id: int
    owner: str
    kind: JobKind
    subject_id: int
    attempts: int

    @property
    def exhausted(self) -> bool:
        """Return whether the job was tried more often than MAX_ATTEMPTS."""
        return self.attempts > MAX_ATTEMPTS


def create(session: Session, kind: JobKind, subject_id: int, now: datetime, priority: int = 0) -> int:
    """Return the id of a new waiting job."""
    job = Job(
        kind=kind,
        subject_id=subject_id,
        state=JobState.WAITING,
        attempts=0,
        not_before=now,
        priority=priority,
    )
    session.add(job)
    session.flush()
    return job.id


def claim(session: Session, job_id: int, *, owner: str, now: datetime, lease: timedelta) -> Claim | None:
    """Take a job that is due, or whose lease ran out; None where somebody else has it or it is over."""
    lock_study_of_job(session, job_id)
    taken = session.execute(
        update(Job)
        .where(Job.id == job_id, _may_be_taken(now))
        .values(
            state=JobState.RUNNING,
            attempts=Job.attempts + 1,
            lost=Job.lost + case((Job.state == JobState.RUNNING, 1), else_=0),
            lease_owner=owner,
            lease_until=now + lease,
            woken_at=None,
            claimed_at=now,
        )
        .returning(Job.kind, Job.subject_id, Job.attempts),
        execution_options=_UNSEEN,
    ).one_or_none()
    return None if taken is None else Claim(job_id, owner, *taken)


def renew(session: Session, job_id: int, owner: str, until: datetime) -> bool:
    """Prolong the lease; False where it is somebody else's by now, or the job was taken away."""
    return _change(session, job_id, owner, lease_until=until)


def progress(session: Session, job_id: int, owner: str) -> bool:
    """Count the attempts anew: a part of the work is done. False where the lease is lost."""
    return _change(session, job_id, owner, attempts=1, lost=0)


def finish(session: Session, job_id: int, owner: str) -> bool:
    """Mark the job done; False where the lease is lost: then roll back what the work wrote."""
    return _change(
        session, job_id, owner, state=JobState.DONE, lease_owner=None, lease_until=None, last_error=None
    )


def retry_later(session: Session, job_id: int, owner: str, *, not_before: datetime, error: str) -> bool:
    """Hand the job back, to be woken at `not_before`; False where the lease is lost."""
    freed = {"lease_owner": None, "lease_until": None, "woken_at": None}
    return _change(
        session, job_id, owner, state=JobState.WAITING, not_before=not_before, last_error=error, **freed
    )


def hand_back(
    session: Session, job_id: int, owner: str, *, not_before: datetime, error: str | None = None
) -> bool:
    """Give the job back as if it had not been tried: it is not its fault. False where the lease is lost."""
    freed = {"lease_owner": None, "lease_until": None, "woken_at": None, "last_error": error}
    undone = {"state": JobState.WAITING, "not_before": not_before, "attempts": Job.attempts - 1}
    return _change(session, job_id, owner, **undone, **freed)


def bury(session: Session, job_id: int, owner: str, error: str) -> bool:
    """Give the job up for good; False where the lease is lost."""
    return _change(
        session, job_id, owner, state=JobState.DEAD, last_error=error, lease_owner=None, lease_until=None
    )


def due(
    session: Session, now: datetime, limit: int, without: Collection[JobKind] = ()
) -> list[tuple[int, JobKind]]:
    """Return jobs that somebody should be woken for: those never woken first, then the urgent.

    Kinds in `without` are not among them, nor deliveries to a destination that is paused, or left alone for a
    while.
    """
    again = now - timedelta(seconds=WAKE_AGAIN_SECONDS)
    wanted = (
        select(Job.id, Job.kind)
        .where(
            _may_be_taken(now),
            or_(Job.woken_at.is_(None), Job.woken_at <= again),
            Job.kind.not_in(without),
            *may_be_sent(session, now),
        )
        .order_by(Job.woken_at.is_not(None), Job.priority.desc(), Job.not_before, Job.id)
        .limit(limit)
    )
    return [(job_id, kind) for job_id, kind in session.execute(wanted)]


def next_analysis(session: Session, now: datetime) -> int | None:
    """Return the analysis job whose turn it is, None where none is due; another worker may take it first."""
    waiting = (
        select(func.min(Job.id), Revision.calling_ae, Job.priority, func.min(Job.not_before))
        .join(Revision, Revision.id == Job.subject_id)
        .where(Job.kind == JobKind.ANALYSIS, _may_be_taken(now))
        .group_by(Revision.calling_ae, Job.priority)
    )
    served = (
        select(Revision.calling_ae, func.max(Job.claimed_at))
        .join(Revision, Revision.id == Job.subject_id)
        .where(Job.kind == JobKind.ANALYSIS, Job.claimed_at > now - MEMORY)
        .group_by(Revision.calling_ae)
    )
    candidates = [Waiting(*row) for row in session.execute(waiting)]
    served_at = {sender: at for sender, at in session.execute(served) if at is not None}
    chosen = next_in_turn(candidates, served_at, now)
    return None if chosen is None else chosen.job_id


def lost_too_often(session: Session, now: datetime, limit: int) -> list[int]:
    """Return the jobs that nobody may take any more, because whoever had them was lost."""
    wanted = select(Job.id).where(_lease_ran_out(now), ~_may_be_lost_again()).order_by(Job.id)
    return list(session.scalars(wanted.limit(limit)))


def bury_lost(session: Session, job_id: int, now: datetime) -> str | None:
    """Give up a job of `lost_too_often` and return why; None where it is none of them any more."""
    lock_study_of_job(session, job_id)
    owner = session.scalar(select(Job.lease_owner).where(Job.id == job_id))
    count = session.execute(
        update(Job)
        .where(Job.id == job_id, _lease_ran_out(now), ~_may_be_lost_again())
        .values(state=JobState.DEAD, lost=Job.lost + 1, lease_owner=None, lease_until=None)
        .returning(Job.lost),
        execution_options=_UNSEEN,
    ).scalar_one_or_none()
    if count is None:
        return None
    reason = f"{count} processes in a row died with it or lost its lease; the last one was {owner}"
    session.execute(update(Job).where(Job.id == job_id).values(last_error=reason), execution_options=_UNSEEN)
    return reason


def mark_woken(session: Session, ids: Sequence[int], now: datetime) -> None:
    """Note that the broker took a message for these jobs; one just being claimed needs no note."""
    still_due = or_(Job.state == JobState.WAITING, _lease_ran_out(now))
    free = select(Job.id).where(Job.id.in_(ids), still_due).with_for_update(skip_locked=True)
    chosen = list(session.scalars(free))
    session.execute(
        update(Job).where(Job.id.in_(chosen)).values(woken_at=now),
        execution_options=_UNSEEN,
    )


def may_be_sent(session: Session, now: datetime) -> list[ColumnElement[bool]]:
    """Return what leaves out deliveries that their destination makes wait: mostly there is nothing to ask."""
    paused, resting = DestinationState.paused_at.is_not(None), DestinationState.left_alone_until > now
    if session.scalar(select(DestinationState.name).where(or_(paused, resting)).limit(1)) is None:
        return []
    theirs = (
        select(Delivery.id)
        .join(DestinationState, DestinationState.name == Delivery.destination)
        .where(or_(paused, left_alone(now)))
    )
    return [~and_(Job.kind == JobKind.DELIVERY, Job.subject_id.in_(theirs))]


def _waiting_and_due(now: datetime) -> ColumnElement[bool]:
    return and_(Job.state == JobState.WAITING, Job.not_before <= now)


def _lease_ran_out(now: datetime) -> ColumnElement[bool]:
    return and_(Job.state == JobState.RUNNING, Job.lease_until < now)


def _may_be_taken(now: datetime) -> ColumnElement[bool]:
    return or_(_waiting_and_due(now), and_(_lease_ran_out(now), _may_be_lost_again()))


def _may_be_lost_again() -> ColumnElement[bool]:
    most = case(*((Job.kind == kind, most) for kind, most in LOST_MOST.items()))
    return Job.lost + 1 < most


def _change(session: Session, job_id: int, owner: str, **values: Any) -> bool:
    if "state" in values:
        check_move(JobState.RUNNING, values["state"])
        values["lost"] = 0
    if values.get("last_error"):
        values["last_error"] = shortened(values["last_error"])
    lock_study_of_job(session, job_id)
    changed = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.RUNNING, Job.lease_owner == owner)
        .values(**values)
        .returning(Job.id),
        execution_options=_UNSEEN,
    ).one_or_none()
    return changed is not None
