"""A part of an upload while it arrives: gathered in memory, and written to its file piece by piece."""

from __future__ import annotations

from contextlib import suppress
from io import FileIO
from pathlib import Path

from cds_plugin.receive.bounds import KIBIBYTE, Bounds
from cds_plugin.receive.part10 import META_BYTES
from cds_plugin.receive.spool import Spool

GATHERED_BYTES = 256 * KIBIBYTE
"""What is held of a part before it is written: most photographs are written in one go, away from the loop."""


class ArrivingPart:
    """The content of one part. Only `add` is for the event loop; the others touch the disk.

    Once something speaks against the object, `refusal` says what, and only the beginning of it is kept:
    the answer names the object by its File Meta Information.
    """

    def __init__(self, path: Path, spool: Spool, bounds: Bounds) -> None:
        self.path = path
        self.refusal: str | None = None
        self._spool = spool
        self._bounds = bounds
        self._file: FileIO | None = None
        self._gathered = bytearray()
        self._size = 0

    def add(self, content: bytes) -> bool:
        """Take some more; return whether `write` is due."""
        self._size += len(content)
        if self.refusal is None:
            self._gathered += content
        return len(self._gathered) >= GATHERED_BYTES

    def write(self) -> None:
        """Write what was gathered, or as much of it as is still kept."""
        content, self._gathered = bytes(self._gathered), bytearray()
        try:
            if self._file is None:
                self._file = FileIO(self.path, "xb")
            self.refusal = self.refusal or self._reason_to_drop()
            room = META_BYTES - self._file.tell()
            kept = content if self.refusal is None else content[: max(0, room)]
            if self._file.write(kept) != len(kept):
                self.refusal = self.refusal or "disk is full"
            if self.refusal is not None:
                self._file.truncate(min(META_BYTES, self._file.tell()))
        except OSError:
            self.refusal = self.refusal or "disk cannot be written"

    def finish(self) -> None:
        """Write the rest and close the file."""
        self.write()
        self._close()

    def remove(self) -> None:
        """Give the part up; nothing of it stays."""
        self._close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _reason_to_drop(self) -> str | None:
        if self._size > self._bounds.object_bytes:
            return "object is larger than the limit"
        if self._spool.free_bytes() < self._bounds.free_bytes:
            return "disk is below its watermark"
        return None

    def _close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
