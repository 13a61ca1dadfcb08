"""Which associations are open and when each was last active: in memory, told to the database now and then.

Every PDU counts as activity, so a slow sender holds its study open; the database learns of it about once
a second and never on the path of a C-STORE.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self
from weakref import WeakKeyDictionary

from pynetdicom.association import Association
from pynetdicom.events import Event

from cds_plugin.caller import Caller, TlsIdentity


@dataclass(slots=True)
class OpenAssociation:
    """One association; `recorded` once a row of it was committed.

    `tls` is the verified client certificate of the peer, set by who accepts the connection.
    """

    id: str
    calling_ae: str
    peer: str
    opened_at: datetime
    active_at: datetime
    recorded: bool = False
    called_ae: str = ""
    tls: TlsIdentity | None = None

    @classmethod
    def begun(cls, caller: Caller) -> Self:
        """Return the association, or what counts as one, that `caller` begins now."""
        now = datetime.now(UTC)
        return cls(
            id=uuid.uuid4().hex,
            calling_ae=caller.calling_ae,
            peer=caller.address,
            opened_at=now,
            active_at=now,
            called_ae=caller.called_ae,
            tls=caller.tls,
        )

    @property
    def caller(self) -> Caller:
        """Return what rules may ask of the sender."""
        return Caller(self.calling_ae, self.peer, self.called_ae, self.tls)


class AssociationLedger:
    """The associations of one listener; safe to use from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Association, OpenAssociation] = {}
        self._tls: WeakKeyDictionary[Association, TlsIdentity] = WeakKeyDictionary()

    def introduce(self, association: Association, tls: TlsIdentity | None) -> None:
        """Note who a new connection is by its certificate; call it before the association starts."""
        if tls is not None:
            with self._lock:
                self._tls[association] = tls

    def entry(self, association: Association) -> OpenAssociation:
        """Return what is known of an accepted association."""
        with self._lock:
            if association not in self._open:
                caller = _caller(association, self._tls.get(association))
                self._open[association] = OpenAssociation.begun(caller)
            return self._open[association]

    def caller(self, association: Association) -> Caller:
        """Return what rules may ask of the sender of an association request, accepted or not."""
        with self._lock:
            return _caller(association, self._tls.get(association))

    def open(self, event: Event) -> None:
        """Note that an association was accepted (evt.EVT_ESTABLISHED)."""
        self.entry(event.assoc)

    def touch(self, event: Event) -> None:
        """Note that a PDU came (evt.EVT_PDU_RECV)."""
        entry = self._open.get(event.assoc)
        if entry is not None:
            entry.active_at = datetime.now(UTC)

    def recorded(self) -> list[OpenAssociation]:
        """Return the associations that have stored something."""
        with self._lock:
            return [each for each in self._open.values() if each.recorded]

    def ended(self) -> Mapping[Association, OpenAssociation]:
        """Return the associations whose threads are gone; they stay until `forget`."""
        with self._lock:
            return {each: entry for each, entry in self._open.items() if _is_over(each)}

    def forget(self, association: Association) -> None:
        """Drop an association that ended."""
        with self._lock:
            self._open.pop(association, None)


def _caller(association: Association, tls: TlsIdentity | None) -> Caller:
    request = association.requestor.primitive
    return Caller(
        calling_ae=(request.calling_ae_title or "").strip() if request is not None else "",
        address=association.requestor.address or "",
        called_ae=(request.called_ae_title or "").strip() if request is not None else "",
        tls=tls,
    )


def _is_over(association: Association) -> bool:
    return association.ident is not None and not association.is_alive() and not association.dul.is_alive()
