"""One upload: its parts become files of the incoming folder, and each complete one goes into the reception.

A part is taken for a DICOM file whatever its own media type says; the reception finds out.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self, assert_never

from anyio import to_thread

from cds_plugin.multipart import PartBegun, PartBytes, PartEnded, PartEvent
from cds_plugin.receive.answers import Status
from cds_plugin.receive.associations import OpenAssociation
from cds_plugin.receive.part10 import META_BYTES, offered_from_file
from cds_plugin.receive.reception import Reception
from cds_plugin.web.answers import Outcome


@dataclass(slots=True)
class _Part:
    """A part that is arriving; `refusal` says why its content is read but no longer kept."""

    path: Path
    file: FileIO
    size: int = 0
    refusal: str | None = None


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
    _part: _Part | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._part is not None:
            self._part.file.close()
            self._part.path.unlink(missing_ok=True)

    async def take(self, event: PartEvent) -> None:
        """Go on with the upload; after the end of a part its object is durable or has failed."""
        self.sender.active_at = datetime.now(UTC)
        match event:
            case PartBegun():
                self._begin()
            case PartBytes(content):
                self._write(content)
            case PartEnded():
                await self._end()
            case _:
                assert_never(event)

    def _begin(self) -> None:
        path = self.folder / f"{uuid.uuid4().hex}.dcm"
        self._part = _Part(path, path.open("xb", buffering=0))

    def _write(self, content: bytes) -> None:
        """Write what came, until something speaks against the object; then keep only its beginning."""
        part = self._the_part
        part.size += len(content)
        if part.refusal is not None:
            return
        part.refusal = self._reason_to_drop(part)
        if part.refusal is None:
            part.refusal = _reason_not_written(part, content)
        else:
            _keep_beginning(part, content)

    def _reason_to_drop(self, part: _Part) -> str | None:
        if part.size > self.reception.bounds.object_bytes:
            return "object is larger than the limit"
        if self.reception.spool.free_bytes() < self.reception.bounds.free_bytes:
            return "disk is below its watermark"
        return None

    async def _end(self) -> None:
        part = self._the_part
        outcome = await to_thread.run_sync(self._receive, part)
        self._part = None
        self.outcomes.append(outcome)

    def _receive(self, part: _Part) -> Outcome:
        try:
            part.file.close()
            offered = offered_from_file(part.path, self.sender, self.study_instance_uid)
        except OSError:
            with suppress(OSError):
                part.path.unlink(missing_ok=True)
            return Outcome("", "", Status.OUT_OF_RESOURCES)
        status, _reason = self.reception.receive(offered, part.refusal)
        return Outcome(offered.sop_class_uid, offered.sop_instance_uid, status)

    @property
    def _the_part(self) -> _Part:
        assert self._part is not None, "the reader says first that a part began"
        return self._part


def _reason_not_written(part: _Part, content: bytes) -> str | None:
    try:
        return None if part.file.write(content) == len(content) else "disk is full"
    except OSError:
        return "disk cannot be written"


def _keep_beginning(part: _Part, content: bytes) -> None:
    """Keep what may hold the File Meta Information: the answer names the object by it."""
    room = max(0, META_BYTES - part.file.tell())
    _reason_not_written(part, content[:room])
    part.file.truncate(min(META_BYTES, part.file.tell()))
