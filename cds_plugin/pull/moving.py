"""C-MOVE: a peer sends to our listener over an association of its own (PS3.4 section C.4.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.association import Association

from cds_db.stages import PulledState
from cds_plugin.deliver.sender import Peer, association_with
from cds_plugin.errors import Refused, Unavailable
from cds_plugin.pull.bounds import MOVE_SECONDS, UIDS_PER_REQUEST
from cds_plugin.pull.finding import SYNTAXES, images
from cds_plugin.pull.found import Arrival, FoundInstance
from cds_plugin.pull.syntaxes import requests

STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
PENDING = 0xFF00
UNKNOWN_DESTINATION = 0xA801
DONE = frozenset((0x0000, 0xB000, 0xA702))
"""Success, or some or all sub-operations failed: the instances that did not come are known by then."""


@dataclass(frozen=True, slots=True)
class MoveRetriever:
    """Lets the peer send to `destination`, our listener's AE title; `arrived` asks which of them are here."""

    peer: Peer
    destination: str
    arrived: Callable[[Sequence[str]], set[str]]

    def retrieve(self, wanted: Sequence[FoundInstance], tell: Callable[[Arrival], None]) -> None:
        """Have instances of one study sent, telling of each that came."""
        study = wanted[0].study_instance_uid
        with association_with(
            self.peer, self.destination, [build_context(STUDY_ROOT_MOVE, SYNTAXES)]
        ) as association:
            if not association.accepted_contexts:
                raise Refused(
                    "no_move", f"{self.peer} takes no C-MOVE", 'Allow it, or write retrieve = "c-get".'
                )
            association.dimse_timeout = association.network_timeout = MOVE_SECONDS
            for series, uids in requests(wanted, UIDS_PER_REQUEST):
                self._move(association, images(study, series, uids))
                for uid in sorted(self.arrived(uids)):
                    tell(Arrival(uid, PulledState.HELD))

    def _move(self, association: Association, identifier: Dataset) -> None:
        try:
            for answer, _failed in association.send_c_move(identifier, self.destination, STUDY_ROOT_MOVE):
                self._check(answer.get("Status"))
        except (RuntimeError, ValueError) as error:
            raise self._broken() from error

    def _check(self, status: int | None) -> None:
        if status is None:
            raise self._broken()
        if status == UNKNOWN_DESTINATION:
            raise Refused(
                "unknown_destination",
                f"{self.peer} does not know AE title {self.destination}",
                "Make it known there, with our listener's address.",
            )
        if status != PENDING and status not in DONE:
            raise Unavailable(
                "move_failed",
                f"{self.peer} answered a C-MOVE with 0x{status:04X}",
                f"Is our listener running, and known there as {self.destination}?",
            )

    def _broken(self) -> Unavailable:
        return Unavailable("move_broken", f"{self.peer} went away during a C-MOVE", "Look at its log.")
