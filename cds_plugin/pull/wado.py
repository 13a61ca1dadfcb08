"""WADO-RS: instances one by one as they are stored, streamed into our reception (PS3.18 section 10.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from requests import Response

from cds_db.stages import PulledState
from cds_plugin.errors import Refused
from cds_plugin.multipart import MultipartBounds, MultipartReader, PartBytes, PartEnded, boundary_of
from cds_plugin.pull.desk import Desk
from cds_plugin.pull.found import Arrival, FoundInstance, arrival_of
from cds_plugin.pull.web import WebPeer
from cds_plugin.receive.part10 import offered_from_file

DICOM = "application/dicom"
ACCEPT = f'multipart/related; type="{DICOM}"; transfer-syntax=*'
"""As it is stored: without the parameter a server converts to Explicit VR Little Endian."""
PARTS = 1
"""An instance is one part."""
ONLY_THIS_ONE = frozenset(("web_refused", "bad_multipart", "multipart_too_large", "bad_media_type"))
"""Refusals that concern one instance; any other would be the same for all."""


@dataclass(frozen=True, slots=True)
class WadoRetriever:
    """Fetches by WADO-RS over one kept connection."""

    web: WebPeer
    desk: Desk

    def retrieve(self, wanted: Sequence[FoundInstance], tell: Callable[[Arrival], None]) -> None:
        """Fetch instances of one study, telling of each that came or was refused."""
        for each in wanted:
            try:
                tell(self._fetched(each))
            except Refused as refusal:
                if refusal.code not in ONLY_THIS_ONE:
                    raise
                tell(Arrival(each.sop_instance_uid, PulledState.FAILED, refusal.message))

    def _fetched(self, wanted: FoundInstance) -> Arrival:
        path = (
            f"studies/{wanted.study_instance_uid}/series/{wanted.series_instance_uid}"
            f"/instances/{wanted.sop_instance_uid}"
        )
        file = self.desk.new_file()
        try:
            with self.web.answer(path, ACCEPT) as answer:
                refusal = self._written(answer, file)
            offered = offered_from_file(file, self.desk.sender, wanted.study_instance_uid)
            status, reason = self.desk.receive(offered, refusal)
        finally:
            file.unlink(missing_ok=True)
        if offered.sop_instance_uid not in ("", wanted.sop_instance_uid):
            return Arrival(wanted.sop_instance_uid, PulledState.FAILED, "the server sent another instance")
        return arrival_of(wanted.sop_instance_uid, status, reason)

    def _written(self, answer: Response, file: Path) -> str | None:
        """Write the one part of an answer to a file; return why nothing more of it should be kept."""
        if self.desk.disk_is_full():
            file.touch()
            return "disk is below its watermark"
        bounds = MultipartBounds(PARTS, self.desk.bounds.object_bytes)
        reader = MultipartReader(boundary_of(answer.headers.get("Content-Type", ""), DICOM), bounds)
        with file.open("xb") as target:
            ended = sum(self._take(reader, chunk, target) for chunk in self.web.content(answer))
        reader.finish()
        if not ended:
            raise Refused("bad_multipart", "the answer has no part", "Look at the server.")
        return None

    def _take(self, reader: MultipartReader, chunk: bytes, target: BinaryIO) -> int:
        ended = 0
        for event in reader.feed(chunk):
            if isinstance(event, PartBytes):
                target.write(event.content)
            ended += isinstance(event, PartEnded)
        self.desk.still_here()
        return ended
