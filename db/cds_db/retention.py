"""Files that a retention rule removes: marked with their audit row, removed, then noted as gone.

The row stays: a re-sent object is still known, and the audit trail says what was there. Between the mark and
the removal anything may die; whoever comes next goes on from the marks. An object that comes again takes its
mark away in the transaction that records it, while it holds the lock of the folder its file lies in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Select, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from cds_db import audit
from cds_db.columns import Json
from cds_db.events import Event
from cds_db.locks import locked_study
from cds_db.models import Commitment, Instance, Result, Revision, Study
from cds_db.sparing import (
    Condition,
    Spared,
    picture_failed,
    picture_is_prior,
    picture_wants_rerun,
    result_failed,
    result_is_prior,
    studies_spared,
)
from cds_db.stages import CommitmentState

MARKED_AT_ONCE = 500
"""Files of one kind in one transaction, and in one audit row that names them all."""
REMOVED_AT_ONCE = 100
"""Files of one kind that are removed before their rows say so."""
Subject: TypeAlias = "type[Instance] | type[Result]"


@dataclass(frozen=True, slots=True)
class Limit:
    """Files older than this go, unless they are spared; `rule` is how the settings say it."""

    rule: str
    before: datetime
    for_rerun: bool = False
    """Spare pictures whose newest report is not of the newest models and settings."""
    priors: bool = False
    """Spare pictures and results that show a lesion as it was seen last."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What becomes of pictures and of results; None: they stay."""

    pictures: Limit | None = None
    results: Limit | None = None


@dataclass(frozen=True, slots=True)
class Marked:
    """What of one study is to be removed; without a study: objects in quarantine."""

    study_instance_uid: str
    pictures: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    size_bytes: int = 0
    quarantined: int = 0

    @property
    def files(self) -> int:
        """Return how many files are named."""
        return len(self.pictures) + len(self.results) + self.quarantined


@dataclass(frozen=True, slots=True)
class DueFile:
    """A file whose row was marked; paths are relative to the storage directory."""

    id: int | str
    is_result: bool
    paths: tuple[str, ...] = field(default=())


def overdue_studies(session: Session, limits: Limits) -> list[str]:
    """Return the studies of which something can be removed, in order of their UIDs."""
    found: set[str] = set()
    for subject, limit in _wanted(limits):
        of_study = _study_of(subject)
        chosen = _chosen(subject, limit, select(of_study).distinct())
        found.update(session.scalars(chosen))
    return sorted(found)


def due_of(session: Session, study_instance_uid: str, limits: Limits) -> Marked:
    """Return what of one study would be marked now, without marking it."""
    return _as_marked(study_instance_uid, _rows_of(session, study_instance_uid, limits, None))


def spared(session: Session, limits: Limits) -> dict[Spared, int]:
    """Return how many old files stay all the same, by reason; one file may have several."""
    counted: dict[Spared, int] = {}
    for subject, limit in _wanted(limits):
        for reason, condition in _reasons(subject, limit).items():
            number = session.scalar(_old(subject, limit, select(func.count())).where(condition)) or 0
            counted[reason] = counted.get(reason, 0) + number
    if limits.pictures is not None:
        counted[Spared.ASKED_FOR] = len(_asked_of_us(session, limits.pictures))
    return {reason: number for reason, number in counted.items() if number}


def mark(session: Session, study_instance_uid: str, limits: Limits, *, now: datetime, actor: str) -> Marked:
    """Mark up to MARKED_AT_ONCE pictures and results of a study, and audit it; nothing left: an empty one."""
    locked_study(session, study_instance_uid)
    rows = _rows_of(session, study_instance_uid, limits, MARKED_AT_ONCE)
    for subject, found in rows.items():
        keys = [row.id for row in found]
        session.execute(
            update(subject).where(_key(subject).in_(keys)).values(purging_since=now),
            execution_options={"synchronize_session": False},
        )
    marked = _as_marked(study_instance_uid, rows)
    if marked.files:
        _audit(session, marked, rows, limits, now=now, actor=actor)
    return marked


def due_files(session: Session, beside: int = 0) -> list[DueFile]:
    """Return marked files that nobody has seen gone yet, the oldest marks first; `beside` more than usual."""
    pictures = (
        select(Instance.id, Instance.path, Instance.original_path)
        .where(*_is_due(Instance))
        .order_by(Instance.purging_since, Instance.id)
        .limit(REMOVED_AT_ONCE + beside)
    )
    results = (
        select(Result.sop_instance_uid, Result.path)
        .where(*_is_due(Result))
        .order_by(Result.purging_since, Result.sop_instance_uid)
        .limit(REMOVED_AT_ONCE + beside)
    )
    found = [
        DueFile(key, False, (path, *([original] if original else [])))
        for key, path, original in session.execute(pictures)
    ]
    return [*found, *(DueFile(key, True, (path,)) for key, path in session.execute(results))]


def due_count(session: Session) -> int:
    """Return how many files are marked and were not seen gone yet."""
    counts = (select(func.count()).where(*_is_due(subject)) for subject in (Instance, Result))
    return sum(session.scalar(each) or 0 for each in counts)


def is_wanted(session: Session, path: str) -> bool:
    """Return whether a row that is not marked speaks of this file: then it must stay."""
    places = (Instance.path, Instance.original_path, Result.path)
    return any(
        session.scalar(select(place).where(place == path, place.class_.purging_since.is_(None)).limit(1))
        is not None
        for place in places
    )


def note_gone(session: Session, files: Iterable[DueFile], *, now: datetime) -> None:
    """Note that files are gone; one whose mark was taken away meanwhile is there again and is left alone."""
    for each in files:
        subject: Subject = Result if each.is_result else Instance
        session.execute(
            update(subject).where(_key(subject) == each.id, *_is_due(subject)).values(purged_at=now),
            execution_options={"synchronize_session": False},
        )


def still_there(column: InstrumentedAttribute[str]) -> Condition:
    """Return the condition that the row of a path vouches for its file: it was not seen gone."""
    gone: ColumnElement[datetime | None] = column.class_.purged_at
    return gone.is_(None)


def note_quarantine(
    session: Session, rule: str, removed: Sequence[str], *, now: datetime, actor: str
) -> None:
    """Audit which objects of the quarantine are about to be removed, by the SHA-256 that names them."""
    detail: dict[str, Json] = {"rule": rule, "files": len(removed), "sha256": list(removed)}
    audit.append(session, event=Event.QUARANTINE_PURGED, actor=actor, now=now, detail=detail)


def _wanted(limits: Limits) -> Iterator[tuple[Subject, Limit]]:
    if limits.pictures is not None:
        yield Instance, limits.pictures
    if limits.results is not None:
        yield Result, limits.results


def _key(subject: Subject) -> InstrumentedAttribute[Any]:
    return Result.sop_instance_uid if subject is Result else Instance.id


def _study_of(subject: Subject) -> InstrumentedAttribute[str]:
    return Revision.study_instance_uid if subject is Result else Instance.study_instance_uid


def _is_due(subject: Subject) -> tuple[Condition, Condition]:
    return subject.purging_since.is_not(None), subject.purged_at.is_(None)


def _old(subject: Subject, limit: Limit, wanted: Select[Any]) -> Select[Any]:
    """Return `wanted` of the files that are older than the limit and not marked yet, beside their study."""
    unmarked = subject.purging_since.is_(None)
    if subject is Result:
        joined = wanted.select_from(Result).join(Revision, Revision.id == Result.revision_id)
        old = Result.created_at < limit.before
    else:
        joined = wanted.select_from(Instance)
        old = Instance.received_at < limit.before
    return joined.join(Study, Study.study_instance_uid == _study_of(subject)).where(unmarked, old)


def _reasons(subject: Subject, limit: Limit) -> dict[Spared, Condition]:
    reasons = studies_spared()
    own = result_failed() if subject is Result else picture_failed()
    reasons[Spared.FAILED] = or_(reasons[Spared.FAILED], own)
    if limit.for_rerun and subject is Instance:
        reasons[Spared.RERUN] = picture_wants_rerun()
    if limit.priors:
        reasons[Spared.PRIOR] = result_is_prior() if subject is Result else picture_is_prior()
    return reasons


def _chosen(subject: Subject, limit: Limit, wanted: Select[Any]) -> Select[Any]:
    return _old(subject, limit, wanted).where(~or_(*_reasons(subject, limit).values()))


def _rows_of(
    session: Session, study_instance_uid: str, limits: Limits, most: int | None
) -> dict[Subject, Sequence[Any]]:
    """Return id, UID, hash and size of the files of a study that may go, up to `most` of each kind."""
    return {
        subject: _rows(session, subject, limit, study_instance_uid, most)
        for subject, limit in _wanted(limits)
    }


def _rows(
    session: Session, subject: Subject, limit: Limit, study_instance_uid: str, most: int | None
) -> Sequence[Any]:
    wanted = select(_key(subject).label("id"), subject.sop_instance_uid, subject.sha256, subject.size_bytes)
    chosen = _chosen(subject, limit, wanted).where(_study_of(subject) == study_instance_uid)
    chosen, passed = chosen.order_by(_key(subject)).limit(most), 0
    while True:
        rows = session.execute(chosen.offset(passed)).all()
        asked = _asked_for(session, {row.sop_instance_uid for row in rows}) if subject is Instance else set()
        left = [row for row in rows if row.sop_instance_uid not in asked]
        if left or most is None or len(rows) < most:
            return left
        passed += most


def _asked_of_us(session: Session, limit: Limit) -> set[str]:
    """Return the old instances that stay for a storage commitment request alone."""
    pending = select(Commitment.id).where(Commitment.state == CommitmentState.PENDING).limit(1)
    if session.scalar(pending) is None:
        return set()
    return _asked_for(
        session, set(session.scalars(_chosen(Instance, limit, select(Instance.sop_instance_uid))))
    )


def _asked_for(session: Session, uids: set[str]) -> set[str]:
    """Return those of the instances that a storage commitment request asks for which was not answered."""
    pending = select(Commitment.referenced).where(Commitment.state == CommitmentState.PENDING)
    asked: set[str] = set()
    for referenced in session.scalars(pending.execution_options(yield_per=1)):
        asked.update(uids.intersection(uid for _, uid in referenced["instances"]))
    return asked


def _as_marked(study_instance_uid: str, rows: dict[Subject, Sequence[Any]]) -> Marked:
    named = {kind: tuple(row.sop_instance_uid for row in found) for kind, found in rows.items()}
    size = sum(row.size_bytes for found in rows.values() for row in found)
    return Marked(study_instance_uid, named.get(Instance, ()), named.get(Result, ()), size)


def _audit(
    session: Session,
    marked: Marked,
    rows: dict[Subject, Sequence[Any]],
    limits: Limits,
    *,
    now: datetime,
    actor: str,
) -> None:
    rules = {subject: limit.rule for subject, limit in _wanted(limits)}
    names: dict[Subject, str] = {Instance: "pictures", Result: "results"}
    removed: dict[str, Json] = {
        names[subject]: {
            "rule": rules[subject],
            "files": len(found),
            "sha256": [[row.sop_instance_uid, row.sha256] for row in found],
        }
        for subject, found in rows.items()
        if found
    }
    audit.append(
        session,
        event=Event.FILES_PURGED,
        actor=actor,
        now=now,
        study_instance_uid=marked.study_instance_uid,
        detail={**removed, "size_bytes": marked.size_bytes},
    )
