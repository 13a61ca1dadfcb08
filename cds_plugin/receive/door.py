"""The door of the listener: an association request is accepted or rejected by what rules know of its caller.

evt.EVT_REQUESTED comes before pynetdicom negotiates anything; a handler of it may reject by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from pynetdicom.association import Association
from pynetdicom.events import Event

from cds_db.events import Event as AuditEvent
from cds_plugin.caller import Caller
from cds_plugin.receive.alarms import Alarms
from cds_plugin.receive.associations import AssociationLedger
from cds_plugin.receive.rulebook import RuleBook
from cds_plugin.rules import Answer, Entry, ask_door

log = structlog.get_logger()

PERMANENT = 0x01
SERVICE_USER = 0x01
DIAGNOSTIC: Mapping[Answer, int] = {
    Answer.CALLING_AE_NOT_RECOGNISED: 0x03,
    Answer.CALLED_AE_NOT_RECOGNISED: 0x07,
}
"""Reasons of an A-ASSOCIATE-RJ that is permanent and from the service user (PS3.8 table 9-21)."""


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    """Handles evt.EVT_REQUESTED of one listener; called from many association threads at once."""

    book: RuleBook
    ledger: AssociationLedger
    alarms: Alarms

    def answer(self, event: Event) -> None:
        """Reject who may not come in. What goes wrong while asking keeps the door shut, too."""
        entry = Entry(Answer.CALLING_AE_NOT_RECOGNISED, "could not be asked")
        caller = self.ledger.caller(event.assoc)
        try:
            entry = ask_door(self.book.settings, caller)
        finally:
            if not entry.accepted:
                self._reject(event.assoc, caller, entry)

    def _reject(self, association: Association, caller: Caller, entry: Entry) -> None:
        association.acse.send_reject(PERMANENT, SERVICE_USER, DIAGNOSTIC[entry.answer])
        reason = f"{entry.answer}: {entry.why}"
        log.warning("association rejected", calling_ae=caller.calling_ae, peer=caller.address, reason=reason)
        self.alarms.note(
            AuditEvent.CALLER_REFUSED, caller.address, reason, datetime.now(UTC), caller.calling_ae
        )
        association.kill()
