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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ORPHAN_GRACE_SECONDS = 3600.0
"""A spool file without a row may still be committed; after an hour nobody will."""
PREFIXES = tuple(f"{number:02x}" for number in range(256))
PRIVATE = 0o700
"""Folders hold patient data: only the account that runs the listener may look."""


class Spool:
    """The folders of one storage directory, and the ways of a file through them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files = directory / "spool"
        self.quarantine = directory / "quarantine"
        self.originals = directory / "originals"
        self.incoming = directory / "incoming"

    def make_folders(self) -> None:
        """Create what is missing, durably."""
        for folder in (self.files, self.quarantine, self.incoming):
            folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        for prefix in PREFIXES:
            (self.files / prefix).mkdir(mode=PRIVATE, exist_ok=True)
        _sync_folder(self.files)
        _sync_folder(self.directory)

    @contextmanager
    def incoming_folder(self) -> Iterator[Path]:
        """Yield an incoming folder of this process; those that dead processes left are removed first."""
        with _locked(self.incoming, fcntl.LOCK_EX):
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
        _sync_file(arrived)
        folder = self.files / sha256[:2]
        with _locked(folder, fcntl.LOCK_SH) as descriptor:
            target = folder / f"{sha256}.dcm"
            arrived.replace(target)
            os.fsync(descriptor)
            yield str(target.relative_to(self.directory))

    def keep_original(self, arrived: Path, sha256: str) -> str:
        """Move the bytes that a repair replaces to the originals, durably; return their relative path.

        No sweep looks there: what a sender really sent stays as long as the study's rows do.
        """
        folder = self.originals / sha256[:2]
        if not folder.is_dir():
            folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
            _sync_folder(self.originals)
            _sync_folder(self.directory)
        _sync_file(arrived)
        target = folder / f"{sha256}.dcm"
        arrived.replace(target)
        _sync_folder(folder)
        return str(target.relative_to(self.directory))

    def put_in_quarantine(self, arrived: Path, sha256: str, facts: Mapping[str, object]) -> str:
        """Move a file into quarantine durably, `facts` as JSON beside it; return its relative path."""
        target = self.quarantine / f"{sha256}.dcm"
        note = self.quarantine / f"{sha256}.json"
        draft = arrived.with_suffix(".json")
        draft.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        for source, place in ((draft, note), (arrived, target)):
            _sync_file(source)
            source.replace(place)
        _sync_folder(self.quarantine)
        return str(target.relative_to(self.directory))

    def remove_orphans(
        self, prefix: str, known: Callable[[Sequence[str]], set[str]], older_than: float
    ) -> int:
        """Delete files under `prefix` last written before `older_than` (seconds since 1970) that have no row.

        `known` returns which of the relative paths stand in the database. A folder that is being written
        to is left for the next round. Returns the number of files deleted.
        """
        folder = self.files / prefix
        with suppress(BlockingIOError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
            old = [each for each in folder.iterdir() if each.stat().st_mtime < older_than]
            paths = {str(each.relative_to(self.directory)): each for each in old}
            orphans = paths.keys() - known(tuple(paths)) if paths else set()
            for path in orphans:
                paths[path].unlink()
            return len(orphans)
        return 0


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_if_abandoned(folder: Path) -> None:
    if not folder.is_dir():
        folder.unlink(missing_ok=True)
        return
    with suppress(BlockingIOError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        yield descriptor
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    with _locked(folder, fcntl.LOCK_SH) as descriptor:
        os.fsync(descriptor)
