"""C-GET: a peer sends over the association that we opened, into our reception (PS3.4 section C.4.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydicom.dataset import Dataset
from pynetdicom import build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from cds_plugin.deliver.sender import Peer, association_with
from cds_plugin.errors import Refused, Unavailable
from cds_plugin.pull.bounds import UIDS_PER_REQUEST
from cds_plugin.pull.desk import Desk
from cds_plugin.pull.finding import SYNTAXES, images
from cds_plugin.pull.found import Arrival, FoundInstance, arrival_of
from cds_plugin.pull.syntaxes import TRANSFER_SYNTAXES, by_classes, requests
from cds_plugin.receive.answers import Offered, response
from cds_plugin.receive.server import BoundedMessages

STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
PENDING = 0xFF00
SUB_OPERATIONS_FAILED = 0xB000
DONE = frozenset((0x0000, SUB_OPERATIONS_FAILED))
"""Success, and the warning that some sub-operations failed: those instances did not come."""


@dataclass(frozen=True, slots=True)
class GetRetriever:
    """Fetches by C-GET; objects come as they are stored, each in the context of its transfer syntax."""

    peer: Peer
    calling_ae: str
    desk: Desk

    def retrieve(self, wanted: Sequence[FoundInstance], tell: Callable[[Arrival], None]) -> None:
        """Fetch instances of one study, telling of each that came or was refused."""
        for classes, instances in by_classes(wanted):
            self._retrieve(classes, instances, tell)

    def _retrieve(
        self, classes: Sequence[str], wanted: Sequence[FoundInstance], tell: Callable[[Arrival], None]
    ) -> None:
        study = wanted[0].study_instance_uid
        contexts = [build_context(STUDY_ROOT_GET, SYNTAXES)]
        contexts += [build_context(each, syntax) for each in classes for syntax in TRANSFER_SYNTAXES]
        roles = [build_role(each, scp_role=True) for each in classes]
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_CONN_OPEN, self._equip),
            (evt.EVT_C_STORE, self._store, [study, tell]),
        ]
        with association_with(self.peer, self.calling_ae, contexts, roles, handlers) as association:
            _check_takes_get(association, self.peer)
            try:
                for series, uids in requests(wanted, UIDS_PER_REQUEST):
                    _get(association, self.peer, images(study, series, uids))
            finally:
                _remove_unfinished(association)

    def _equip(self, event: Event) -> None:
        event.assoc.dimse = BoundedMessages(event.assoc, self.desk.bounds, self.desk.disk_is_full)

    def _store(self, event: Event, study: str, tell: Callable[[Arrival], None]) -> Dataset:
        request = cast(C_STORE, event.request)
        offered = Offered(
            path=Path(event.dataset_path),
            sop_class_uid=str(request.AffectedSOPClassUID or ""),
            sop_instance_uid=str(request.AffectedSOPInstanceUID or ""),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            association=self.desk.sender,
            study_instance_uid=study,
        )
        messages = event.assoc.dimse
        refusal = messages.refusal_of(offered.path) if isinstance(messages, BoundedMessages) else None
        status, reason = self.desk.receive(offered, refusal)
        tell(arrival_of(offered.sop_instance_uid, status, reason))
        return response(status, reason)


def _check_takes_get(association: Association, peer: Peer) -> None:
    accepted = {str(each.abstract_syntax) for each in association.accepted_contexts}
    if STUDY_ROOT_GET not in accepted:
        raise Refused("no_get", f"{peer} takes no C-GET", 'Allow it, or write retrieve = "c-move".')


def _get(association: Association, peer: Peer, identifier: Dataset) -> None:
    try:
        for answer, _failed in association.send_c_get(identifier, STUDY_ROOT_GET):
            status = answer.get("Status")
            if status is None:
                raise Unavailable("get_broken", f"{peer} went away during a C-GET", "Look at its log.")
            if status != PENDING and status not in DONE:
                raise Unavailable(
                    "get_failed", f"{peer} answered a C-GET with 0x{status:04X}", "Look at its log."
                )
    except (RuntimeError, ValueError) as error:
        raise Unavailable("get_broken", f"{peer} went away during a C-GET", "Look at its log.") from error


def _remove_unfinished(association: Association) -> None:
    """Remove what came half before the association broke."""
    messages = association.dimse
    for path in messages.unfinished() if isinstance(messages, BoundedMessages) else ():
        with suppress(OSError):
            path.unlink()
