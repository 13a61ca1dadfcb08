"""One upload: its parts become files of the incoming folder, and each complete one goes into the reception.

A part is taken for a DICOM file whatever its own media type says; the reception finds out.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, assert_never

from anyio import to_thread

from cds_plugin.multipart import PartBegun, PartBytes, PartEnded, PartEvent
from cds_plugin.receive.answers import Offered
from cds_plugin.receive.associations import OpenAssociation
from cds_plugin.receive.part10 import offered_from_file
from cds_plugin.receive.reception import Reception
from cds_plugin.web.answers import Outcome
from cds_plugin.web.part import ArrivingPart


@dataclass(slots=True)
class Upload:
    """Takes the events of one body in order; a context manager that leaves no half file behind.

    `study_instance_uid` is the study that the request names, or the empty text.
    """

    reception: Reception
    sender: OpenAssociation
    folder: Path
    study_instance_uid: str
    outcomes: list[Outcome] = field(default_factory=list)
    _part: ArrivingPart | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._part is not None:
            self._part.remove()

    async def take(self, event: PartEvent) -> None:
        """Go on with the upload; after the end of a part its object is durable or has failed."""
        self.sender.active_at = datetime.now(UTC)
        match event:
            case PartBegun():
                path = self.folder / f"{uuid.uuid4().hex}.dcm"
                self._part = ArrivingPart(path, self.reception.spool, self.reception.bounds)
            case PartBytes(content):
                if self._the_part.add(content):
                    await to_thread.run_sync(self._the_part.write)
            case PartEnded():
                outcome = await to_thread.run_sync(self._receive, self._the_part)
                self._part = None
                self.outcomes.append(outcome)
            case _:
                assert_never(event)

    def _receive(self, part: ArrivingPart) -> Outcome:
        part.finish()
        try:
            offered = offered_from_file(part.path, self.sender, self.study_instance_uid)
        except OSError:
            offered = Offered(part.path, "", "", "", self.sender, self.study_instance_uid)
            part.refusal = part.refusal or "disk cannot be written"
        status, _reason = self.reception.receive(offered, part.refusal)
        return Outcome(offered.sop_class_uid, offered.sop_instance_uid, status)

    @property
    def _the_part(self) -> ArrivingPart:
        assert self._part is not None, "the reader says first that a part began"
        return self._part
