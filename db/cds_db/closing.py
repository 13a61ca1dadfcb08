"""Revisions that still receive: by which open associations, and how one is closed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, bindparam, delete, select, update
from sqlalchemy.orm import Session

from cds_db import audit, jobs
from cds_db.events import Event
from cds_db.locks import locked_revision
from cds_db.models import Association, Base, Instance, Revision
from cds_db.moves import move
from cds_db.stages import JobKind, Stage


@dataclass(frozen=True, slots=True)
class AssociationActivity:
    """An open association and when it was last heard of."""

    id: str
    active_at: datetime


@dataclass(frozen=True, slots=True)
class OpenRevision:
    """A revision that still receives, with the open associations that stored into it."""

    revision_id: int
    study_instance_uid: str
    calling_ae: str
    opened_at: datetime
    last_received_at: datetime
    associations: tuple[AssociationActivity, ...]
    quiet_seconds: float | None = None
    """As the rules of its pictures want it; None: as the listener's settings say."""


def open_association(
    session: Session, *, id: str, listener: str, calling_ae: str, peer: str, now: datetime
) -> None:
    """Note an association that may hold its studies open."""
    session.add(
        Association(id=id, listener=listener, calling_ae=calling_ae, peer=peer, opened_at=now, active_at=now)
    )


def touch_associations(session: Session, active_at: Mapping[str, datetime]) -> None:
    """Note when each association (by its id) was last heard of; unknown ones are passed over."""
    heard = [{"association": each, "heard": instant} for each, instant in sorted(active_at.items())]
    if heard:
        session.connection().execute(_TOUCH, heard)


_TOUCH = (
    update(Base.metadata.tables[Association.__tablename__])
    .where(Association.id == bindparam("association"))
    .values(active_at=bindparam("heard"))
)


def close_association(session: Session, association_id: str) -> None:
    """Forget an association that ended."""
    session.execute(delete(Association).where(Association.id == association_id))


def forget_listener(session: Session, listener: str) -> None:
    """Forget all associations of a listener that died: none of them is open any more."""
    session.execute(delete(Association).where(Association.listener == listener))


def receiving(session: Session, only: int | None = None) -> list[OpenRevision]:
    """Return every revision that is still open, oldest first; `only` one of them, by its id."""
    activity: dict[int | None, list[AssociationActivity]] = {}
    stored_by = (
        select(Instance.revision_id, Association.id, Association.active_at)
        .join(Association, Association.id == Instance.association_id)
        .join(Revision, Revision.id == Instance.revision_id)
        .where(*_is_open(only))
        .distinct()
    )
    for revision_id, association_id, active_at in session.execute(stored_by):
        activity.setdefault(revision_id, []).append(AssociationActivity(association_id, active_at))
    opened = select(Revision).where(*_is_open(only)).order_by(Revision.id)
    return [_open_revision(each, activity.get(each.id, [])) for each in session.scalars(opened)]


def _is_open(only: int | None) -> list[ColumnElement[bool]]:
    is_open = [Revision.stage == Stage.RECEIVING]
    return is_open if only is None else [*is_open, Revision.id == only]


def close_revision(session: Session, revision_id: int, *, now: datetime, actor: str) -> int:
    """Close a revision that receives and return the id of its analysis job. Raises IllegalMove."""
    revision = locked_revision(session, revision_id)
    move(revision, Stage.QUEUED, now)
    revision.closed_at = now
    audit.append(
        session,
        event=Event.STUDY_CLOSED,
        actor=actor,
        now=now,
        study_instance_uid=revision.study_instance_uid,
        detail={"revision": revision.number},
    )
    return jobs.create(session, JobKind.ANALYSIS, revision.id, now, revision.priority)


def _open_revision(revision: Revision, activity: list[AssociationActivity]) -> OpenRevision:
    return OpenRevision(
        revision.id,
        revision.study_instance_uid,
        revision.calling_ae,
        revision.opened_at,
        revision.last_received_at,
        tuple(activity),
        revision.quiet_seconds,
    )
