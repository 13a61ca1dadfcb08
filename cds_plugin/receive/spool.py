"""Files that survive: incoming, spool, originals and quarantine below the storage folder.

What a name in the spool says is a SHA-256 of the bytes, so no sender chooses a path, and the same bytes
sent again replace themselves.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cds_plugin.durable import (
    ORIGINALS_FOLDER,
    PREFIXES,
    PRIVATE,
    QUARANTINE_FOLDER,
    SPOOL_FOLDER,
    locked,
    sync_file,
    sync_folder,
)


class Spool:
    """The folders of one storage directory, and the ways of a file through them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files = directory / SPOOL_FOLDER
        self.quarantine = directory / QUARANTINE_FOLDER
        self.originals = directory / ORIGINALS_FOLDER
        self.incoming = directory / "incoming"

    def make_folders(self) -> None:
        """Create what is missing, durably."""
        for folder in (self.files, self.quarantine, self.originals, self.incoming):
            folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        for prefix in PREFIXES:
            (self.files / prefix).mkdir(mode=PRIVATE, exist_ok=True)
        sync_folder(self.files)
        sync_folder(self.directory)

    @contextmanager
    def incoming_folder(self) -> Iterator[Path]:
        """Yield an incoming folder of this process; those that dead processes left are removed first."""
        with locked(self.incoming, fcntl.LOCK_EX):
            for left in self.incoming.iterdir():
                _remove_if_abandoned(left)
            mine = self.incoming / uuid.uuid4().hex
            mine.mkdir(mode=PRIVATE)
            lock = os.open(mine, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield mine
        finally:
            os.close(lock)
            shutil.rmtree(mine, ignore_errors=True)

    def free_bytes(self) -> int:
        """Return what the file system of the incoming folder still takes."""
        return shutil.disk_usage(self.incoming).free

    @contextmanager
    def kept(self, arrived: Path, sha256: str) -> Iterator[str]:
        """Move a file into the spool durably and yield its path relative to the storage directory.

        Until the block ends no orphan sweep touches it: commit its row inside.
        """
        folder = self.files / sha256[:2]
        with locked(folder, fcntl.LOCK_SH) as descriptor:
            _move_durably(arrived, folder / f"{sha256}.dcm")
            os.fsync(descriptor)
            yield f"{SPOOL_FOLDER}/{sha256[:2]}/{sha256}.dcm"

    @contextmanager
    def kept_original(self, arrived: Path, sha256: str) -> Iterator[str]:
        """Move the bytes that a repair replaces to the originals, durably; yield their relative path.

        Until the block ends no purge touches them: commit the object's row inside. No sweep looks there: what
        a sender really sent stays as long as the repaired file does.
        """
        folder = self.originals / sha256[:2]
        if not folder.is_dir():
            folder.mkdir(mode=PRIVATE, exist_ok=True)
            sync_folder(self.originals)
        sync_file(arrived)
        target = folder / f"{sha256}.dcm"
        with locked(folder, fcntl.LOCK_SH) as descriptor:
            arrived.replace(target)
            os.fsync(descriptor)
            yield str(target.relative_to(self.directory))

    def put_in_quarantine(self, arrived: Path, sha256: str, facts: Mapping[str, object]) -> str:
        """Move a file into quarantine durably, `facts` as JSON beside it; return its relative path."""
        target = self.quarantine / f"{sha256}.dcm"
        note = self.quarantine / f"{sha256}.json"
        draft = arrived.with_suffix(".json")
        draft.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        with locked(self.quarantine, fcntl.LOCK_SH) as descriptor:
            for source, place in ((draft, note), (arrived, target)):
                sync_file(source)
                source.replace(place)
            os.fsync(descriptor)
        return str(target.relative_to(self.directory))


def _move_durably(arrived: Path, target: Path) -> None:
    """Give a file its name and make its bytes durable; the name is durable once its folder was synced.

    Named first, bytes and name share one commit of the file system's journal: half the waiting. What a crash
    leaves half written under that name has no row, and nothing here trusts a file that is there already: it
    is replaced by one whose bytes are durable.
    """
    try:
        os.link(arrived, target)
    except OSError:
        sync_file(arrived)
        arrived.replace(target)
        return
    sync_file(target)
    arrived.unlink()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_if_abandoned(folder: Path) -> None:
    if not folder.is_dir():
        folder.unlink(missing_ok=True)
        return
    with suppress(BlockingIOError), locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        shutil.rmtree(folder)
