"""One C-STORE: from the event to the answer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import structlog
from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from cds_plugin.receive.answers import Offered, Status, response
from cds_plugin.receive.associations import AssociationLedger, OpenAssociation
from cds_plugin.receive.reception import Reception
from cds_plugin.receive.server import BoundedMessages

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StoreHandler:
    """Handles evt.EVT_C_STORE of one listener; called from many association threads at once."""

    reception: Reception
    ledger: AssociationLedger

    def __call__(self, event: Event) -> Dataset:
        """Return the status of an object that came through pynetdicom's queues."""
        offered = _offered(event, self.ledger.entry(event.assoc))
        messages = event.assoc.dimse
        refusal = messages.refusal_of(offered.path) if isinstance(messages, BoundedMessages) else None
        return response(*self.answer(offered, refusal))

    def answer(self, offered: Offered, refusal: str | None) -> tuple[Status, str]:
        """Return the status of the object and its reason; what Success acknowledges survives a crash."""
        started = time.monotonic()
        status, reason = self.reception.receive(offered, refusal)
        offered.association.active_at = datetime.now(UTC)
        log.info(
            "c-store answered",
            association=offered.association.id,
            calling_ae=offered.association.calling_ae,
            status=f"0x{status:04X}",
            reason=reason,
            milliseconds=round((time.monotonic() - started) * 1000, 1),
        )
        return status, reason


def _offered(event: Event, association: OpenAssociation) -> Offered:
    request = cast(C_STORE, event.request)
    return Offered(
        path=Path(event.dataset_path),
        sop_class_uid=str(request.AffectedSOPClassUID or ""),
        sop_instance_uid=str(request.AffectedSOPInstanceUID or ""),
        transfer_syntax_uid=str(event.context.transfer_syntax),
        association=association,
    )
