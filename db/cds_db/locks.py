"""Row locks in one order - a study, then what hangs on it - so that no two writers wait in a circle.

PostgreSQL runs READ COMMITTED: whoever changes a study, its revisions, deliveries or jobs first locks the
study's row and then reads again what it decides on. SQLite has one writer at a time and needs none of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from cds_db.models import Base, Commitment, Delivery, Job, Revision, Study
from cds_db.stages import JobKind

REREAD = {"populate_existing": True}


def locked_study(session: Session, study_instance_uid: str) -> Study:
    """Return the study, locked until the transaction ends. Raises NoResultFound."""
    wanted = select(Study).where(Study.study_instance_uid == study_instance_uid).with_for_update()
    return session.scalars(wanted, execution_options=REREAD).one()


def locked_revision(session: Session, revision_id: int) -> Revision:
    """Return the revision as it is once its study is locked. Raises NoResultFound."""
    study = session.scalars(select(Revision.study_instance_uid).where(Revision.id == revision_id)).one()
    locked_study(session, study)
    return session.scalars(select(Revision).where(Revision.id == revision_id), execution_options=REREAD).one()


def locked_delivery(session: Session, delivery_id: int) -> Delivery:
    """Return the delivery as it is once its study is locked. Raises NoResultFound."""
    wanted = select(Delivery).where(Delivery.id == delivery_id)
    locked_revision(session, session.scalars(wanted).one().revision_id)
    return session.scalars(wanted, execution_options=REREAD).one()


def locked_commitment(session: Session, commitment_id: int) -> Commitment:
    """Return the commitment, locked until the transaction ends. Raises NoResultFound."""
    wanted = select(Commitment).where(Commitment.id == commitment_id).with_for_update()
    return session.scalars(wanted, execution_options=REREAD).one()


def lock_study_of_job(session: Session, job_id: int) -> None:
    """Lock the study (or the commitment) that a job works for; a job that does not exist locks nothing."""
    found = session.execute(select(Job.kind, Job.subject_id).where(Job.id == job_id)).one_or_none()
    if found is None:
        return
    kind: JobKind = found.kind
    subject_id: int = found.subject_id
    match kind:
        case JobKind.ANALYSIS:
            locked_revision(session, subject_id)
        case JobKind.DELIVERY:
            locked_delivery(session, subject_id)
        case JobKind.COMMITMENT:
            locked_commitment(session, subject_id)
        case _:
            assert_never(kind)


def insert_those_absent(session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows that no unique key has already, all in one go: a study may have 50,000 instances."""
    if rows:
        insert = _dialect(session).insert(table.__table__).on_conflict_do_nothing()
        session.execute(insert, [dict(row) for row in rows])


def insert_if_absent(
    session: Session, table: type[Base], values: Mapping[str, Any], returning: InstrumentedAttribute[Any]
) -> Any | None:
    """Insert a row and return its `returning` column, or None where a unique key has it already.

    A row that another transaction is inserting right now is waited for.
    """
    insert = _dialect(session).insert(table).values(**values)
    return session.scalar(insert.on_conflict_do_nothing().returning(returning))


def _dialect(session: Session) -> Any:
    """Return the module of the session's engine; both know ON CONFLICT by the same words."""
    return sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
