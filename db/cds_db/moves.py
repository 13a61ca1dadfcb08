"""The functions that move a revision or a delivery, and what putting a study on hold means."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.orm import Session

from cds_db.models import Delivery, Job, Revision, Study
from cds_db.stages import (
    HOLDABLE,
    DeliveryState,
    JobKind,
    JobState,
    Stage,
    check_move,
    check_revival,
)

ON_HOLD = "the study is on hold: its instances disagree about the patient"
ERROR_LENGTH = 500
"""Longer texts of foreign errors are cut."""


def move(revision: Revision, to: Stage, now: datetime) -> None:
    """Move a revision whose study is locked. Raises IllegalMove."""
    check_move(revision.stage, to)
    revision.stage, revision.moved_at = to, now


def move_delivery(delivery: Delivery, to: DeliveryState) -> None:
    """Move a delivery whose study is locked. Raises IllegalMove."""
    check_move(delivery.state, to)
    delivery.state = to


def discard_revision(revision: Revision, why: str, now: datetime) -> None:
    """End a revision whose study is locked for good. Raises IllegalMove."""
    move(revision, Stage.DISCARDED, now)
    revision.failure = shortened(why)


def revive(revision: Revision, to: Stage, now: datetime) -> None:
    """Let a revision whose study is locked go on after all. Raises IllegalMove where its stage has no way."""
    check_revival(revision.stage, to)
    revision.stage, revision.moved_at, revision.failure = to, now, None


def hold(session: Session, study: Study, now: datetime) -> tuple[int, ...]:
    """Stop everything that has not been sent for a locked study; return the numbers of the revisions held."""
    study.conflict_at = study.conflict_at or now
    wanted = select(Revision).where(
        Revision.study_instance_uid == study.study_instance_uid, Revision.stage.in_(HOLDABLE)
    )
    revisions = list(session.scalars(wanted.order_by(Revision.number)))
    for revision in revisions:
        move(revision, Stage.CONFLICT, now)
    _hold_work(session, [revision.id for revision in revisions])
    return tuple(revision.number for revision in revisions)


def shortened(text: str) -> str:
    """Return a foreign error's text, cut to ERROR_LENGTH characters."""
    return text if len(text) <= ERROR_LENGTH else text[: ERROR_LENGTH - 1] + "…"


def _hold_work(session: Session, revisions: list[int]) -> None:
    over = (DeliveryState.DELIVERED, DeliveryState.DISCARDED)
    unsent = select(Delivery).where(Delivery.revision_id.in_(revisions), Delivery.state.not_in(over))
    deliveries = list(session.scalars(unsent))
    for delivery in deliveries:
        move_delivery(delivery, DeliveryState.HELD)
    session.execute(
        update(Job)
        .where(
            or_(
                _works_for(JobKind.ANALYSIS, revisions),
                _works_for(JobKind.DELIVERY, [each.id for each in deliveries]),
            ),
            Job.state.in_((JobState.WAITING, JobState.RUNNING)),
        )
        .values(state=JobState.DEAD, last_error=ON_HOLD, lease_owner=None, lease_until=None),
        execution_options={"synchronize_session": False},
    )


def _works_for(kind: JobKind, subjects: list[int]) -> ColumnElement[bool]:
    return and_(Job.kind == kind, Job.subject_id.in_(subjects))
