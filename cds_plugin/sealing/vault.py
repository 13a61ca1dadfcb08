"""The files below the storage directory: the one place that opens them, and that seals what is written.

A file is read as it lies there, sealed or plain, whatever the settings say now: so encryption can be switched
on, and keys be changed, while everything runs. What a library wants as a path is handed out as memory without
a name, never as a plain copy on a disk.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self, cast

from cds_plugin.config import Settings
from cds_plugin.durable import PART, sync_file
from cds_plugin.errors import Refused, Unavailable
from cds_plugin.sealing.keys import Keys, read_keys
from cds_plugin.sealing.sealed import MAGIC, KeyMissing, SealedReader, key_id_of, sealed

COPY_BYTES = 1 << 20
MEMORY = Path("/dev/shm")
MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})


@dataclass(slots=True)
class _Loaded:
    """The keys as they were read last, and from which state of the file."""

    state: tuple[int, int, int] | None = None
    keys: Keys | None = None


@dataclass(frozen=True, slots=True)
class Vault:
    """The storage directory; `key_file` is None where nothing is sealed.

    `incoming` is where objects arrive: in memory where they are sealed later.
    """

    directory: Path
    key_file: Path | None = None
    incoming: Path = field(default=Path())
    _loaded: _Loaded = field(default_factory=_Loaded, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the vault that the settings describe, its keys read. Raises Refused."""
        storage = settings.storage
        vault = cls(storage.directory, storage.encryption_key_file, incoming_of(settings))
        vault.keys()
        return vault

    @classmethod
    def at_work(cls, settings: Settings) -> Self:
        """Return the same to work that waits until its keys are right. Raises Unavailable."""
        try:
            return cls.of(settings)
        except Refused as refusal:
            raise Unavailable(refusal.code, refusal.message, refusal.action) from refusal

    @property
    def seals(self) -> bool:
        """Return whether what is written is sealed."""
        return self.key_file is not None

    def keys(self) -> Keys | None:
        """Return the keys as the file has them now; one that is gone or wrong leaves those read before."""
        if self.key_file is None:
            return None
        try:
            facts = self.key_file.stat()
            state = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
            if state != self._loaded.state:
                self._loaded.keys = read_keys(self.key_file, self.directory)
                self._loaded.state = state
        except (Refused, OSError):
            if self._loaded.keys is None:
                return read_keys(self.key_file, self.directory)
        return self._loaded.keys

    def open(self, path: str | Path) -> BinaryIO:
        """Return the plain bytes of a file below the directory, from any position. Every reader uses this.

        Raises OSError where it is missing, changed or cut off, KeyMissing where its key is not there.
        """
        file = (self.directory / path).open("rb")
        try:
            head = file.read(len(MAGIC))
            file.seek(0)
            if key_id_of(head) is None:
                return file
            return cast("BinaryIO", io.BufferedReader(SealedReader(file, self.keys()), COPY_BYTES))
        except KeyMissing:
            file.close()
            if self._only_looks_sealed(path):
                return (self.directory / path).open("rb")
            raise
        except BaseException:
            file.close()
            raise

    def _only_looks_sealed(self, path: str | Path) -> bool:
        """Return whether a file's name is the SHA-256 of its bytes as they lie: then they are plain.

        Whoever knows how sealed files begin may have sent such bytes, which went into quarantine.
        """
        with (self.directory / path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == Path(path).stem

    def digest_of(self, path: str | Path) -> tuple[str, int]:
        """Return SHA-256 and number of the plain bytes. Raises as `open` does."""
        digest, size = hashlib.sha256(), 0
        with self.open(path) as file:
            while chunk := file.read(COPY_BYTES):
                digest.update(chunk)
                size += len(chunk)
        return digest.hexdigest(), size

    @contextmanager
    def plain(self, path: str | Path) -> Iterator[Path]:
        """Yield a path under which the plain bytes can be read while the block runs.

        It is the open file itself where that is plain, so that one which is sealed meanwhile stays what it
        was; else memory without a name. Raises as `open` does.
        """
        with self.open(path) as found:
            if not isinstance(getattr(found, "raw", None), SealedReader):
                yield Path(f"/proc/self/fd/{found.fileno()}")
                return
            memory = os.memfd_create("stored", os.MFD_CLOEXEC)
            try:
                with os.fdopen(os.dup(memory), "wb") as copy:
                    shutil.copyfileobj(found, copy, COPY_BYTES)
                yield Path(f"/proc/self/fd/{memory}")
            finally:
                os.close(memory)

    def as_kept(self, content: bytes) -> bytes:
        """Return what is to be written for an object that is in memory."""
        keys = self.keys()
        return content if keys is None else b"".join(sealed(io.BytesIO(content), keys.newest))

    def move_in(self, arrived: Path, target: Path) -> None:
        """Seal a file that arrived under its final name, its bytes durable, and remove the plain one.

        Its name is durable once its folder was synced. Raises OSError.
        """
        keys = self.keys()
        assert keys is not None, "only a vault that seals"
        draft = target.with_name(f"{uuid.uuid4().hex}{PART}")
        try:
            with arrived.open("rb") as source, _new(draft) as copy:
                for chunk in sealed(source, keys.newest):
                    copy.write(chunk)
            sync_file(draft)
            draft.replace(target)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        arrived.unlink()


def incoming_of(settings: Settings) -> Path:
    """Return where objects arrive. Raises Refused for a disk where they must not lie plain."""
    storage = settings.storage
    if storage.encryption_key_file is None:
        return storage.directory / "incoming"
    name = hashlib.sha256(str(storage.directory).encode()).hexdigest()[:16]
    folder = storage.incoming_directory or MEMORY / f"cds-plugin-{os.getuid()}-{name}"
    if not _is_memory(folder):
        raise Refused(
            "incoming_on_disk",
            f"storage.incoming_directory: {folder} is on a disk, where objects would lie plain at first.",
            "Name a folder of a tmpfs, such as one in /dev/shm.",
        )
    return folder


def _is_memory(folder: Path) -> bool:
    """Return whether a folder, or the nearest one above that exists, is on a file system in memory."""
    there = folder.resolve()
    while not there.exists():
        there = there.parent
    best = ("", "")
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
            _, place, kind, *_ = line.split(" ")
            if there.is_relative_to(place) and len(place) >= len(best[0]):
                best = (place, kind)
    return best[1] in MEMORY_FILE_SYSTEMS


def _new(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
