"""What the database knows of the associations that are open in one process.

A listener's associations and the uploads of the web server count alike: while one is active, the studies
that it stored into stay open.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from cds_db import studies
from cds_db.models import Association
from cds_plugin.receive.associations import OpenAssociation


def keep_recorded(session: Session, listener: str, recorded: Sequence[OpenAssociation]) -> None:
    """Write the activity of associations, and write anew the rows of those that were taken for dead."""
    known = set(session.scalars(select(Association.id).where(Association.listener == listener)))
    for entry in recorded:
        if entry.id not in known:
            studies.open_association(
                session,
                id=entry.id,
                listener=listener,
                calling_ae=entry.calling_ae,
                peer=entry.peer,
                now=entry.active_at,
            )
    studies.touch_associations(session, {each.id: each.active_at for each in recorded})
