"""Lesions as they were reported, and what is known of a patient's lesions when the next picture comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Subquery, and_, func, or_, select
from sqlalchemy.orm import Session

from cds_db.models import Lesion, Result, Revision, Study

MOST_KNOWN = 2_000
"""Observations of one patient that are compared; the newest ones where there are more."""


@dataclass(frozen=True, slots=True)
class ReportedLesion:
    """One lesion of one picture as a report has it; `frame` is 0 where the picture has only one."""

    source_sop_instance_uid: str
    frame: int
    number: int
    tracking_uid: str
    observed_at: datetime
    box: tuple[int, int, int, int]
    site: str | None
    laterality: str | None
    malignancy: float
    area_mm2: float | None
    appearance: bytes | None
    appearance_model: str | None


@dataclass(frozen=True, slots=True)
class EarlierLesion:
    """A lesion that was reported before, and of which study."""

    study_instance_uid: str
    lesion: ReportedLesion


def record_lesions(session: Session, revision_id: int, lesions: Sequence[ReportedLesion]) -> None:
    """Keep the lesions of a picture; in the transaction that records its results for the first time."""
    for each in lesions:
        x0, y0, x1, y1 = each.box
        session.add(
            Lesion(
                revision_id=revision_id,
                source_sop_instance_uid=each.source_sop_instance_uid,
                frame=each.frame,
                number=each.number,
                tracking_uid=each.tracking_uid,
                observed_at=each.observed_at,
                x0=x0,
                y0=y0,
                x1=x1,
                y1=y1,
                site=each.site,
                laterality=each.laterality,
                malignancy=each.malignancy,
                area_mm2=each.area_mm2,
                appearance=each.appearance,
                appearance_model=each.appearance_model,
            )
        )


def known_lesions(session: Session, study_instance_uid: str) -> list[EarlierLesion]:
    """Return the lesions of this patient in the newest report on each picture, newest first.

    The patient is known by Patient ID and its issuer; one without an ID has only this study. Studies on hold,
    whose patient is in doubt, are left out.
    """
    study = session.get_one(Study, study_instance_uid)
    newest = _newest_revisions(study)
    wanted = (
        select(Lesion, Revision.study_instance_uid)
        .join(Revision, Revision.id == Lesion.revision_id)
        .join(
            newest,
            and_(
                newest.c.source == Lesion.source_sop_instance_uid,
                newest.c.study == Revision.study_instance_uid,
                newest.c.number == Revision.number,
            ),
        )
        .order_by(Lesion.observed_at.desc(), Lesion.source_sop_instance_uid, Lesion.frame, Lesion.number)
        .limit(MOST_KNOWN)
    )
    return [EarlierLesion(uid, _reported(row)) for row, uid in session.execute(wanted)]


def _newest_revisions(study: Study) -> Subquery:
    """Return for each picture of the patient the number of the newest revision that reported on it."""
    same_patient = and_(
        Study.patient_id == study.patient_id,
        Study.issuer_of_patient_id == study.issuer_of_patient_id,
        Study.conflict_at.is_(None),
    )
    this_study = Study.study_instance_uid == study.study_instance_uid
    return (
        select(
            Result.source_sop_instance_uid.label("source"),
            Revision.study_instance_uid.label("study"),
            func.max(Revision.number).label("number"),
        )
        .join(Revision, Revision.id == Result.revision_id)
        .join(Study, Study.study_instance_uid == Revision.study_instance_uid)
        .where(or_(this_study, same_patient) if study.patient_id.strip() else this_study)
        .group_by(Result.source_sop_instance_uid, Revision.study_instance_uid)
        .subquery()
    )


def _reported(row: Lesion) -> ReportedLesion:
    return ReportedLesion(
        row.source_sop_instance_uid,
        row.frame,
        row.number,
        row.tracking_uid,
        row.observed_at,
        (row.x0, row.y0, row.x1, row.y1),
        row.site,
        row.laterality,
        row.malignancy,
        row.area_mm2,
        row.appearance,
        row.appearance_model,
    )
