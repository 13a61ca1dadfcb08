"""Pictures that are analysed once more: with other models, after a failure, or after a hold was decided.

A repeated analysis is a new revision of the study; nothing that was made before is changed or removed. What
the same recipe has made already is not made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, exists, select, update
from sqlalchemy.orm import Session

from cds_db import audit, dead_letters, jobs
from cds_db.analysis import REPORT_KIND
from cds_db.columns import Json
from cds_db.events import Event
from cds_db.handling import Handling, together
from cds_db.locks import locked_revision, locked_study
from cds_db.models import (
    DeliveredObject,
    Delivery,
    Instance,
    Job,
    Result,
    Revision,
    RevisionPicture,
    Study,
)
from cds_db.reception import handling_of
from cds_db.stages import JobKind, JobState, Origin, Stage
from cds_db.trail import note

AT_WORK = frozenset({Stage.RECEIVING, Stage.QUEUED, Stage.ANALYSING})
SET_ASIDE = "set aside when the study was released: it is of another patient"


class Repeat(StrEnum):
    """What became of the wish to repeat a study's analysis."""

    QUEUED = "queued"
    UNCHANGED = "unchanged"
    """The same models and settings have analysed every picture."""
    AT_WORK = "at_work"
    ON_HOLD = "on_hold"
    NOTHING = "nothing_to_analyse"
    PURGED = "purged"
    """A retention rule had every picture removed that is still to be analysed."""
    UNKNOWN = "unknown_study"


@dataclass(frozen=True, slots=True)
class Repeated:
    """The outcome, and the new revision with the number of its pictures where there is one.

    `purged` counts those that were to be analysed and are not there any more.
    """

    outcome: Repeat
    revision: int | None = None
    pictures: int = 0
    purged: int = 0


@dataclass(frozen=True, slots=True)
class EarlierReport:
    """A report of an earlier revision; `path` is relative to the storage directory.

    `same_picture` says that it is of the picture in question, else it is of another one of the study; `frame`
    is which frame of its picture it is on.
    """

    study_instance_uid: str
    series_instance_uid: str | None
    sop_class_uid: str
    sop_instance_uid: str
    path: str
    same_picture: bool
    frame: int = 1


def rerun(session: Session, study_instance_uid: str, recipe: str, *, now: datetime, actor: str) -> Repeated:
    """Queue a new revision of the pictures that `recipe` has not analysed yet.

    `recipe` is the digest of models and settings. A study that is at work is left alone, but a re-run that
    nobody began yet takes the new recipe.
    """
    if session.get(Study, study_instance_uid) is None:
        return Repeated(Repeat.UNKNOWN)
    study = locked_study(session, study_instance_uid)
    newest = _newest(session, study_instance_uid)
    if study.conflict_at is not None:
        return Repeated(Repeat.ON_HOLD)
    if newest is None:
        return Repeated(Repeat.NOTHING)
    if newest.stage in AT_WORK:
        return _at_work(session, newest, recipe, now=now, actor=actor)
    pictures = _pictures(session, study_instance_uid)
    outdated = [each for each in pictures if _recipe_of(session, each.sop_instance_uid) != recipe]
    if not outdated:
        return Repeated(Repeat.UNCHANGED if pictures else Repeat.NOTHING)
    there = [each for each in outdated if each.purging_since is None]
    purged = len(outdated) - len(there)
    if not there:
        return Repeated(Repeat.PURGED, purged=purged)
    revision = _repeat(session, newest, there, Origin.RERUN, now, recipe)
    _discard_replaced(session, revision, now=now, actor=actor)
    detail: dict[str, Json] = {"pictures": len(there), "recipe": recipe, "purged": purged}
    note(session, revision, Event.STUDY_RERUN, now=now, actor=actor, detail=detail)
    return Repeated(Repeat.QUEUED, revision.number, len(there), purged)


def closed_between(session: Session, since: datetime | None, until: datetime | None) -> list[str]:
    """Return the studies of which a revision was closed in that time, oldest first."""
    wanted = select(Revision.study_instance_uid).where(Revision.closed_at.is_not(None))
    if since is not None:
        wanted = wanted.where(Revision.closed_at >= since)
    if until is not None:
        wanted = wanted.where(Revision.closed_at < until)
    return list(dict.fromkeys(session.scalars(wanted.order_by(Revision.closed_at, Revision.id))))


def earlier_reports(session: Session, revision_id: int, source_sop_instance_uid: str) -> list[EarlierReport]:
    """Return the reports that a picture's new one replaces, one per frame; else those that it adds to.

    The latter are the reports of the newest earlier revision that has any. What was held back and never sent
    has no successor.
    """
    revision = session.get_one(Revision, revision_id)
    sent = exists().where(DeliveredObject.sop_instance_uid == Result.sop_instance_uid)
    wanted = (
        select(Result, Revision.number)
        .join(Revision, Revision.id == Result.revision_id)
        .where(
            Revision.study_instance_uid == revision.study_instance_uid,
            Revision.number < revision.number,
            Result.kind == REPORT_KIND,
            ((Revision.stage != Stage.CONFLICT) & ~_ended_unsent()) | sent,
        )
        .order_by(Revision.number.desc(), Result.sop_instance_uid)
    )
    rows = session.execute(wanted).all()
    every = [row for row in rows if row[0].source_sop_instance_uid == source_sop_instance_uid]
    own = [result for result, number in every if number == every[0][1]]
    others = [result for result, number in rows if number == rows[0][1]]
    return [_earlier(revision, each, bool(own)) for each in own or others]


def pictures_on_hold(session: Session, study_instance_uid: str) -> list[Instance]:
    """Return the pictures of a study, whatever their patient; they are to be told apart by their files."""
    return _pictures(session, study_instance_uid)


def release(
    session: Session,
    study_instance_uid: str,
    patient: tuple[str, str],
    set_aside: Sequence[int],
    *,
    reason: str,
    now: datetime,
    actor: str,
) -> Repeated:
    """End a hold after somebody decided that the study is of `patient` (Patient ID, issuer).

    The instances named by `set_aside` are never analysed; they stay stored. The others are analysed in a new
    revision; what the hold kept back is never sent. Does nothing to a study that is not on hold.
    """
    study = locked_study(session, study_instance_uid)
    newest = _newest(session, study_instance_uid)
    if study.conflict_at is None:
        return Repeated(Repeat.NOTHING)
    before = [study.patient_id, study.issuer_of_patient_id]
    study.patient_id, study.issuer_of_patient_id = patient
    study.conflict_at = None
    _set_aside(session, study_instance_uid, set_aside, now=now, actor=actor)
    pictures = [
        each
        for each in _pictures(session, study_instance_uid)
        if each.purging_since is None and _is_unsent(session, each)
    ]
    revision = None
    if newest is not None and pictures:
        revision = _repeat(session, newest, pictures, Origin.RELEASE, now, None)
    audit.append(
        session,
        event=Event.STUDY_RELEASED,
        actor=actor,
        now=now,
        study_instance_uid=study_instance_uid,
        detail={
            "patient_id": [before[0], patient[0]],
            "issuer_of_patient_id": [before[1], patient[1]],
            "set_aside": len(set_aside),
            "pictures": len(pictures),
            "revision": revision.number if revision else None,
            "reason": reason,
        },
    )
    return Repeated(
        Repeat.QUEUED if revision else Repeat.NOTHING, revision.number if revision else None, len(pictures)
    )


def _discard_replaced(session: Session, revision: Revision, *, now: datetime, actor: str) -> None:
    """End the dead letters of earlier analyses whose pictures this revision takes up."""
    wanted = (
        select(Job.id)
        .join(Revision, Revision.id == Job.subject_id)
        .where(
            Job.kind == JobKind.ANALYSIS,
            Job.state == JobState.DEAD,
            Revision.study_instance_uid == revision.study_instance_uid,
            Revision.stage == Stage.FAILED,
        )
    )
    for job_id in session.scalars(wanted).all():
        reason = f"revision {revision.number} analyses its pictures"
        dead_letters.discard(session, job_id, reason=reason, now=now, actor=actor)


def _at_work(session: Session, newest: Revision, recipe: str, *, now: datetime, actor: str) -> Repeated:
    waits = newest.stage is Stage.QUEUED and newest.origin is Origin.RERUN
    if not waits:
        return Repeated(Repeat.AT_WORK, newest.number)
    revision = locked_revision(session, newest.id)
    if revision.wanted_recipe != recipe:
        revision.wanted_recipe = recipe
        note(session, revision, Event.STUDY_RERUN, now=now, actor=actor, detail={"recipe": recipe})
    return Repeated(Repeat.QUEUED, revision.number)


def _repeat(
    session: Session,
    newest: Revision,
    pictures: Sequence[Instance],
    origin: Origin,
    now: datetime,
    recipe: str | None,
) -> Revision:
    wanted = _handling(session, newest.study_instance_uid)
    revision = Revision(
        study_instance_uid=newest.study_instance_uid,
        number=newest.number + 1,
        stage=Stage.QUEUED,
        calling_ae=newest.calling_ae,
        opened_at=now,
        last_received_at=now,
        closed_at=now,
        moved_at=now,
        priority=0,
        origin=origin,
        wanted_recipe=recipe,
        quiet_seconds=wanted.quiet_seconds if wanted else None,
        routes={name: list(kinds) for name, kinds in wanted.routes.items()} if wanted else None,
        retry_hours=wanted.retry_hours if wanted else None,
    )
    session.add(revision)
    session.flush()
    session.add_all(RevisionPicture(revision_id=revision.id, instance_id=each.id) for each in pictures)
    jobs.create(session, JobKind.ANALYSIS, revision.id, now)
    return revision


def _handling(session: Session, study_instance_uid: str) -> Handling | None:
    """Return what the rules wanted for the pictures of all revisions together."""
    merged: Handling | None = None
    for each in session.scalars(select(Revision).where(Revision.study_instance_uid == study_instance_uid)):
        wanted = handling_of(each)
        if wanted is not None:
            merged = wanted if merged is None else together(merged, wanted)
    return merged


def _newest(session: Session, study_instance_uid: str) -> Revision | None:
    wanted = select(Revision).where(Revision.study_instance_uid == study_instance_uid)
    ordered = wanted.order_by(Revision.number.desc()).limit(1)
    return session.scalars(ordered, execution_options={"populate_existing": True}).one_or_none()


def _pictures(session: Session, study_instance_uid: str) -> list[Instance]:
    wanted = select(Instance).where(
        Instance.study_instance_uid == study_instance_uid,
        Instance.in_use,
        Instance.reason_not_analysed.is_(None),
        Instance.revision_id.is_not(None),
    )
    return list(session.scalars(wanted.order_by(Instance.id)))


def _recipe_of(session: Session, source_sop_instance_uid: str) -> str | None:
    newest = (
        select(Result.recipe)
        .join(Revision, Revision.id == Result.revision_id)
        .where(Result.source_sop_instance_uid == source_sop_instance_uid, Result.kind == REPORT_KIND)
        .where(Revision.stage != Stage.CONFLICT, ~_ended_unsent())
        .order_by(Revision.number.desc())
        .limit(1)
    )
    return session.scalar(newest)


def _ended_unsent() -> ColumnElement[bool]:
    """Return whether an analysis was given up: what it made of its first pictures was never to be sent."""
    ended = Revision.stage.in_((Stage.FAILED, Stage.DISCARDED))
    return ended & ~exists().where(Delivery.revision_id == Revision.id)


def _is_unsent(session: Session, picture: Instance) -> bool:
    """Return whether no report on a picture stands in a revision that a hold did not stop."""
    held = select(Result.sop_instance_uid).join(Revision, Revision.id == Result.revision_id)
    standing = held.where(
        Result.source_sop_instance_uid == picture.sop_instance_uid,
        Result.kind == REPORT_KIND,
        Revision.stage != Stage.CONFLICT,
        ~_ended_unsent(),
    )
    return session.scalar(standing.limit(1)) is None


def _set_aside(
    session: Session, study_instance_uid: str, instances: Sequence[int], *, now: datetime, actor: str
) -> None:
    for each in instances:
        session.execute(
            update(Instance).where(Instance.id == each).values(reason_not_analysed=SET_ASIDE),
            execution_options={"synchronize_session": False},
        )
        audit.append(
            session,
            event=Event.PICTURE_SET_ASIDE,
            actor=actor,
            now=now,
            study_instance_uid=study_instance_uid,
            sop_instance_uid=session.scalar(select(Instance.sop_instance_uid).where(Instance.id == each)),
        )
    session.expire_all()


def _earlier(revision: Revision, result: Result, same_picture: bool) -> EarlierReport:
    return EarlierReport(
        study_instance_uid=revision.study_instance_uid,
        series_instance_uid=result.series_instance_uid,
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
        path=result.path,
        same_picture=same_picture,
        frame=result.frame,
    )
