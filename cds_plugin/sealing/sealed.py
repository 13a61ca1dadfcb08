"""The form of a sealed file: AES-256-GCM in chunks, under a key of its own that follows from ours.

    CDSSEAL1 | key id (8) | salt (32) | chunk | chunk | ... | last chunk

A chunk is up to 65,536 bytes and its tag (16). HKDF-SHA256 makes the file's key from ours, the salt and the
head, so a nonce is only a count: 11 bytes, big-endian, and one that is 1 for the last chunk. That is the
STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizar, 2015) as age uses it, with AES-GCM: chunks can't
be left out, exchanged, cut off or moved to another file without notice.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cds_plugin.errors import Unavailable
from cds_plugin.sealing.keys import ID_BYTES, KEY_BYTES, SETTING, Key, Keys

MAGIC = b"CDSSEAL1"
SALT_BYTES = 32
HEAD_BYTES = len(MAGIC) + ID_BYTES + SALT_BYTES
CHUNK_BYTES = 1 << 16
TAG_BYTES = 16
SEALED_CHUNK_BYTES = CHUNK_BYTES + TAG_BYTES
COUNT_BYTES = 11


class SealBroken(OSError):
    """A sealed file is not as it was written; to its readers that is a disk that lost it."""

    def __init__(self) -> None:
        super().__init__(errno.EBADMSG, "the sealed file was changed or cut off")


class KeyMissing(Unavailable):
    """A file was sealed with a key that is not there: it can be read once the key is back."""

    def __init__(self, key_id: bytes) -> None:
        super().__init__(
            "storage_key_missing",
            f"A stored file was sealed with key {key_id.hex()}, which {SETTING} does not hold.",
            "Put that key back into the file.",
        )


def sealed(source: BinaryIO, key: Key) -> Iterator[bytes]:
    """Yield the sealed form of what `source` holds."""
    head = MAGIC + key.id + os.urandom(SALT_BYTES)
    cipher = _cipher(key, head)
    yield head
    count, chunk = 0, source.read(CHUNK_BYTES)
    while True:
        following = source.read(CHUNK_BYTES) if len(chunk) == CHUNK_BYTES else b""
        yield cipher.encrypt(_nonce(count, last=not following), chunk, head)
        if not following:
            return
        count, chunk = count + 1, following


def key_id_of(head: bytes) -> bytes | None:
    """Return the id of the key that a file with this head was sealed with; None for a plain one."""
    return head[len(MAGIC) : len(MAGIC) + ID_BYTES] if head.startswith(MAGIC) else None


class SealedReader(io.RawIOBase):
    """The plain bytes of a sealed file, from any position; wrap it in a BufferedReader.

    Raises KeyMissing at once, SealBroken where a chunk is read that is not as it was written.
    """

    def __init__(self, file: BinaryIO, keys: Keys | None) -> None:
        self._file = file
        head = file.read(HEAD_BYTES)
        key_id = key_id_of(head)
        if key_id is None or len(head) < HEAD_BYTES:
            raise SealBroken
        key = keys.by_id.get(key_id) if keys is not None else None
        if key is None:
            raise KeyMissing(key_id)
        self._head, self._cipher = head, _cipher(key, head)
        body = file.seek(0, os.SEEK_END) - HEAD_BYTES
        self._chunks = max(1, -(-body // SEALED_CHUNK_BYTES))
        self.size_bytes = body - self._chunks * TAG_BYTES
        if self.size_bytes < 0:
            raise SealBroken
        self.name = getattr(file, "name", "")
        """As files have one: readers ask for it."""
        self._position = 0
        self._held = (-1, b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self.size_bytes:
            self._check_end()
            return 0
        number, within = divmod(self._position, CHUNK_BYTES)
        part = self._chunk(number)[within : within + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _check_end(self) -> None:
        """Open the last chunk even of an empty file: only its tag says that nothing was cut off."""
        self._chunk(self._chunks - 1)

    def _chunk(self, number: int) -> bytes:
        if self._held[0] != number:
            self._file.seek(HEAD_BYTES + number * SEALED_CHUNK_BYTES)
            body = self._file.read(SEALED_CHUNK_BYTES)
            try:
                nonce = _nonce(number, last=number == self._chunks - 1)
                self._held = number, self._cipher.decrypt(nonce, body, self._head)
            except InvalidTag as error:
                raise SealBroken from error
        return self._held[1]


def _cipher(key: Key, head: bytes) -> AESGCM:
    derive = HKDF(SHA256(), KEY_BYTES, salt=head[-SALT_BYTES:], info=b"cds-plugin sealed file\0" + head)
    return AESGCM(derive.derive(key.secret))


def _nonce(count: int, *, last: bool) -> bytes:
    return count.to_bytes(COUNT_BYTES, "big") + bytes([last])
