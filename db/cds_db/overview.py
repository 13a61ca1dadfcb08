"""Where studies stand, as `cds-plugin status` shows it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from cds_db.destinations import paused_names
from cds_db.models import Delivery, Instance, Result, Revision, Study
from cds_db.stages import AskedState, DeliveryState, Origin, Stage


@dataclass(frozen=True, slots=True)
class ResultLine:
    """One result object; `source` is the SOP Instance UID of its picture, `revision` made it."""

    sop_instance_uid: str
    kind: str
    source: str
    revision: int = 1


@dataclass(frozen=True, slots=True)
class DeliveryLine:
    """One delivery; `revision` is the number of the revision that it carries."""

    destination: str
    state: DeliveryState
    attempts: int
    last_error: str | None
    revision: int
    retry_until: datetime | None = None
    """When it is given up; None before the first attempt."""
    commitment: AskedState | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class StudyStatus:
    """A study as its newest revision stands.

    `revision`, `stage` and `calling_ae` are None where nothing that is analysed was received (a study on hold
    has the stage all the same); `received` is when the newest revision was opened; `instances` counts what is
    analysed, over all revisions; `deliveries` are the newest revision's and older ones still undelivered.
    """

    study_instance_uid: str
    revision: int | None
    stage: Stage | None
    calling_ae: str | None
    received: datetime
    closed: datetime | None
    instances: int
    failure: str | None
    origin: Origin | None
    results: tuple[ResultLine, ...]
    deliveries: tuple[DeliveryLine, ...]
    purged: int = 0
    """How many of the instances a retention rule had removed."""


def status(session: Session, study_instance_uid: str) -> StudyStatus | None:
    """Return where a study stands, or None where it was never received."""
    study = session.get(Study, study_instance_uid)
    return None if study is None else _status(session, study)


def statuses(session: Session, limit: int) -> list[StudyStatus]:
    """Return where the studies stand that were received last, newest first."""
    newest = (
        select(Study)
        .outerjoin(Revision, Revision.study_instance_uid == Study.study_instance_uid)
        .group_by(Study.study_instance_uid)
        .order_by(func.coalesce(func.max(Revision.opened_at), Study.created_at).desc())
        .limit(limit)
    )
    return [_status(session, study) for study in session.scalars(newest)]


def _status(session: Session, study: Study) -> StudyStatus:
    uid = study.study_instance_uid
    newest = session.scalars(
        select(Revision).where(Revision.study_instance_uid == uid).order_by(Revision.number.desc()).limit(1)
    ).one_or_none()
    stage = newest.stage if newest else None
    return StudyStatus(
        study_instance_uid=uid,
        revision=newest.number if newest else None,
        stage=stage if study.conflict_at is None else Stage.CONFLICT,
        calling_ae=newest.calling_ae if newest else None,
        received=newest.opened_at if newest else study.created_at,
        closed=newest.closed_at if newest else None,
        instances=_pictures(session, uid),
        failure=newest.failure if newest else None,
        origin=newest.origin if newest else None,
        results=_results(session, uid),
        deliveries=_deliveries(session, newest),
        purged=_pictures(session, uid, Instance.purging_since.is_not(None)),
    )


def _pictures(session: Session, study_instance_uid: str, *conditions: ColumnElement[bool]) -> int:
    counted = select(func.count()).where(
        Instance.study_instance_uid == study_instance_uid,
        Instance.in_use,
        Instance.reason_not_analysed.is_(None),
        *conditions,
    )
    return session.scalar(counted) or 0


def _results(session: Session, study_instance_uid: str) -> tuple[ResultLine, ...]:
    """Return what the newest revision that has results of a picture made of it, for every picture."""
    wanted = (
        select(Result.source_sop_instance_uid, Result.kind, Result.sop_instance_uid, Revision.number)
        .join(Revision, Revision.id == Result.revision_id)
        .where(Revision.study_instance_uid == study_instance_uid)
        .order_by(Revision.number, Result.source_sop_instance_uid, Result.frame, Result.kind)
    )
    rows = session.execute(wanted).all()
    newest = {source: number for source, _, _, number in rows}
    return tuple(
        ResultLine(uid, kind, source, number)
        for source, kind, uid, number in rows
        if number == newest[source]
    )


def _deliveries(session: Session, newest: Revision | None) -> tuple[DeliveryLine, ...]:
    if newest is None:
        return ()
    undelivered = Delivery.state != DeliveryState.DELIVERED
    wanted = (
        select(Delivery, Revision.number)
        .join(Revision, Revision.id == Delivery.revision_id)
        .where(
            Revision.study_instance_uid == newest.study_instance_uid,
            or_(Revision.id == newest.id, and_(Revision.number < newest.number, undelivered)),
        )
        .order_by(Revision.number, Delivery.destination)
    )
    paused = set(paused_names(session))
    return tuple(
        DeliveryLine(
            destination=each.destination,
            state=each.state,
            attempts=each.attempts,
            last_error=each.last_error,
            revision=number,
            retry_until=each.retry_until if each.state is DeliveryState.PENDING else None,
            commitment=each.commitment,
            paused=each.destination in paused,
        )
        for each, number in session.execute(wanted)
    )
