"""The usual object recorded with four prepared statements: new, of the known patient, of an open revision.

Of a hundred objects that a PACS sends ninety-nine are of this kind, and what SQLAlchemy's object mapping
spends on them is most of the time of a C-STORE. What is not of this kind is left untouched to
`reception.record_instance`, which says what has to happen.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from sqlalchemy import ClauseElement, and_, bindparam, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from cds_db.columns import storable
from cds_db.handling import Handling, together
from cds_db.models import Instance, Removable, Revision, Study
from cds_db.prepared import Prepared, Transaction
from cds_db.stages import Stage

_SAME = and_(
    Instance.sop_instance_uid == bindparam("sop_instance_uid"), Instance.sha256 == bindparam("sha256")
)
_NEWEST = (
    select(func.max(Revision.number))
    .where(Revision.study_instance_uid == bindparam("study_instance_uid"))
    .scalar_subquery()
)
_STUDY = Prepared(
    lambda _dialect: (
        select(Study.patient_id, Study.issuer_of_patient_id, Study.conflict_at)
        .where(Study.study_instance_uid == bindparam("study_instance_uid"))
        .with_for_update()
    )
)


class _Situation(NamedTuple):
    """What the object meets, as the driver says it: the row of the same bytes, the newest revision."""

    same: int | None
    revision_id: int | None
    stage: str | None
    closed_at: Any
    quiet_seconds: float | None
    priority: int
    routes: str | None
    retry_hours: float | None


_SITUATION = Prepared(
    lambda _dialect: (
        select(
            Instance.id,
            Revision.id,
            Revision.stage,
            Revision.closed_at,
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
)
_HEARD = Prepared(
    lambda _dialect: (
        update(Revision.__table__)  # type: ignore[arg-type]
        .where(Revision.id == bindparam("revision"), Revision.last_received_at < bindparam("now"))
        .values(last_received_at=bindparam("now"))
    )
)
_LATER = {Instance.id.name, *Removable.__annotations__}
"""Columns that a new row leaves to the database."""
_COLUMNS = [each.name for each in Instance.__table__.columns if each.name not in _LATER]


def _insert(dialect: str) -> ClauseElement:
    insert = sqlite.insert(Instance) if dialect == "sqlite" else postgresql.insert(Instance)
    return insert.on_conflict_do_nothing().returning(Instance.id)


_INSERT = Prepared(_insert, _COLUMNS)


def join(
    transaction: Transaction, row: dict[str, Any], patient: tuple[str, str] | None, handling: Handling | None
) -> tuple[int, int | None] | None:
    """Insert the row of an instance where nothing else follows from it; return its id and its revision's.

    `patient` is (Patient ID, issuer) where they must be the study's; an object with a reason not to be
    analysed joins no revision. None: it is not the usual object, and nothing was written.
    """
    study = _STUDY.run(transaction, row).fetchone()
    if study is None or study[2] is not None or not _is_of(study[:2], patient):
        return None
    situation = _Situation(*_SITUATION.run(transaction, row).fetchone())
    analysed = row["reason_not_analysed"] is None
    if situation.same is not None or (analysed and not _is_open_for(situation, handling)):
        return None
    revision_id = situation.revision_id if analysed else None
    inserted = _INSERT.run(transaction, {**row, "in_use": True, "revision_id": revision_id}).fetchone()
    if inserted is None:
        return None
    if revision_id is not None:
        _HEARD.run(transaction, {"revision": revision_id, "now": row["received_at"]})
    return inserted[0], revision_id


def _is_of(known: tuple[str, str], patient: tuple[str, str] | None) -> bool:
    return patient is None or known == tuple(map(storable, patient))


def _is_open_for(situation: _Situation, wanted: Handling | None) -> bool:
    """Return whether the newest revision receives, and serves the rule of this picture already."""
    if situation.stage != Stage.RECEIVING or situation.closed_at is not None:
        return False
    if wanted is None:
        return True
    if situation.routes is None or situation.quiet_seconds is None:
        return False
    routes = {name: tuple(kinds) for name, kinds in json.loads(situation.routes).items()}
    served = Handling(situation.quiet_seconds, situation.priority, routes, situation.retry_hours)
    return together(served, wanted) == served
