"""What log and audit trail say of certificates that changed under way."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog
from sqlalchemy.orm import Session

from cds_db import audit
from cds_db.events import Event, Outcome
from cds_plugin.tls.serving import Reload

log = structlog.get_logger()


def note_reload(session: Session, reload: Reload, actor: str) -> None:
    """Log and audit what became of the changed TLS files of the part `actor`."""
    if reload.problem is None:
        log.info("tls files reloaded", part=actor)
    else:
        log.error("tls files refused, the old ones stay in use", part=actor, problem=reload.problem)
    audit.append(
        session,
        event=Event.TLS_FILES_CHANGED,
        actor=actor,
        now=datetime.now(UTC),
        outcome=Outcome.SUCCESS if reload.problem is None else Outcome.MINOR_FAILURE,
        detail={"problem": reload.problem} if reload.problem else {},
    )
