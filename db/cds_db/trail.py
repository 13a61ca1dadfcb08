"""What the audit trail says of a revision and of its deliveries: always which study and which revision."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy.orm import Session

from cds_db import audit
from cds_db.columns import Json
from cds_db.events import Event, Outcome
from cds_db.models import Delivery, Revision


def note(
    session: Session,
    subject: Revision | Delivery,
    event: Event,
    *,
    now: datetime,
    actor: str,
    detail: Mapping[str, Json],
    outcome: Outcome = Outcome.SUCCESS,
    sop_instance_uid: str | None = None,
) -> None:
    """Append an event of a revision, or of a delivery of one: then the destination is named too."""
    revision, whose = _whose(session, subject)
    audit.append(
        session,
        event=event,
        actor=actor,
        now=now,
        study_instance_uid=revision.study_instance_uid,
        sop_instance_uid=sop_instance_uid,
        outcome=outcome,
        detail={"revision": revision.number, **whose, **detail},
    )


def _whose(session: Session, subject: Revision | Delivery) -> tuple[Revision, dict[str, Json]]:
    if isinstance(subject, Revision):
        return subject, {}
    return session.get_one(Revision, subject.revision_id), {"destination": subject.destination}
