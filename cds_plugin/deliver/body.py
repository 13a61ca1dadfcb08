"""A multipart/related body of DICOM files, streamed from disk, of known length (PS3.18 8.6.1.2)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

CHUNK_BYTES = 256 * 1024


class Stored(Protocol):
    """A stored file of known size, which may lie sealed."""

    @property
    def size_bytes(self) -> int:
        """Return the number of its plain bytes."""

    def open(self) -> BinaryIO:
        """Return its plain bytes."""


Part: TypeAlias = Path | Stored | bytes
"""A file on disk, a stored one, or one that was made in memory."""


class MultipartBody:
    """The body of one STOW-RS request; requests asks for its length and iterates over it."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = [(part, _size(part)) for part in parts]
        self._boundary = uuid.uuid4().hex
        self._head = f"--{self._boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._tail = f"--{self._boundary}--\r\n".encode()

    @property
    def content_type(self) -> str:
        """Return the value of the header field."""
        return f'multipart/related; type="application/dicom"; boundary={self._boundary}'

    def __len__(self) -> int:
        inside = sum(len(self._head) + size + len(b"\r\n") for _, size in self._parts)
        return inside + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        for part, _ in self._parts:
            yield self._head
            with _opened(part) as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk
            yield b"\r\n"
        yield self._tail


def _opened(part: Part) -> BinaryIO:
    if isinstance(part, bytes):
        return BytesIO(part)
    return part.open("rb") if isinstance(part, Path) else part.open()


def _size(part: Part) -> int:
    if isinstance(part, bytes):
        return len(part)
    return part.stat().st_size if isinstance(part, Path) else part.size_bytes
