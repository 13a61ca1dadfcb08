"""The usual object recorded with four prepared statements: new, of the known patient, of an open revision.

Of a hundred objects that a PACS sends ninety-nine are of this kind, and what SQLAlchemy's object mapping
spends on them is most of the time of a C-STORE. What is not of this kind is left untouched to
`reception.record_instance`, which says what has to happen.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Insert, and_, bindparam, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from cds_db.columns import storable
from cds_db.handling import Handling, together
from cds_db.models import Instance, Revision, Study
from cds_db.stages import Stage

_SAME = and_(
    Instance.sop_instance_uid == bindparam("sop_instance_uid"), Instance.sha256 == bindparam("sha256")
)
_NEWEST = (
    select(func.max(Revision.number))
    .where(Revision.study_instance_uid == bindparam("study_instance_uid"))
    .scalar_subquery()
)
_STUDY = (
    select(Study.patient_id, Study.issuer_of_patient_id, Study.conflict_at)
    .where(Study.study_instance_uid == bindparam("study_instance_uid"))
    .with_for_update()
)
_SITUATION = (
    select(
        Instance.id.label("same"),
        Revision.id.label("revision_id"),
        Revision.stage,
        Revision.closed_at,
        Revision.last_received_at,
        Revision.quiet_seconds,
        Revision.priority,
        Revision.routes,
        Revision.retry_hours,
    )
    .select_from(Study)
    .outerjoin(Instance, _SAME)
    .outerjoin(
        Revision,
        and_(Revision.study_instance_uid == Study.study_instance_uid, Revision.number == _NEWEST),
    )
    .where(Study.study_instance_uid == bindparam("study_instance_uid"))
)
_HEARD = (
    update(Revision.__table__)  # type: ignore[arg-type]
    .where(Revision.id == bindparam("revision"))
    .values(last_received_at=bindparam("now"))
)


def _insert(dialect: Any) -> Insert:
    statement: Insert = dialect.insert(Instance.__table__).on_conflict_do_nothing().returning(Instance.id)
    return statement


_INSERT = {"sqlite": _insert(sqlite), "postgresql": _insert(postgresql)}


def join(
    session: Session, row: dict[str, Any], patient: tuple[str, str] | None, handling: Handling | None
) -> tuple[int, int | None] | None:
    """Insert the row of an instance where nothing else follows from it; return its id and its revision's.

    `patient` is (Patient ID, issuer) where they must be the study's; an object with a reason not to be
    analysed joins no revision. None: it is not the usual object, and nothing was written.
    """
    connection = session.connection()
    study = connection.execute(_STUDY, {"study_instance_uid": row["study_instance_uid"]}).one_or_none()
    if study is None or study.conflict_at is not None or not _is_of(study, patient):
        return None
    keys = {name: row[name] for name in ("study_instance_uid", "sop_instance_uid", "sha256")}
    situation = connection.execute(_SITUATION, keys).one()
    analysed = row["reason_not_analysed"] is None
    if situation.same is not None or (analysed and not _is_open_for(situation, handling)):
        return None
    revision_id = situation.revision_id if analysed else None
    insert = _INSERT[connection.dialect.name]
    instance_id = connection.execute(insert, {**row, "in_use": True, "revision_id": revision_id}).scalar()
    if instance_id is None:
        return None
    now: datetime = row["received_at"]
    if revision_id is not None and now > situation.last_received_at:
        connection.execute(_HEARD, {"revision": revision_id, "now": now})
    return instance_id, revision_id


def _is_of(study: Any, patient: tuple[str, str] | None) -> bool:
    known = (study.patient_id, study.issuer_of_patient_id)
    return patient is None or known == tuple(map(storable, patient))


def _is_open_for(situation: Any, wanted: Handling | None) -> bool:
    """Return whether the newest revision receives, and serves the rule of this picture already."""
    if situation.stage is not Stage.RECEIVING or situation.closed_at is not None:
        return False
    if wanted is None:
        return True
    if situation.routes is None or situation.quiet_seconds is None:
        return False
    routes = {name: tuple(kinds) for name, kinds in situation.routes.items()}
    served = Handling(situation.quiet_seconds, situation.priority, routes, situation.retry_hours)
    return together(served, wanted) == served
