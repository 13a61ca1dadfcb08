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
from cds_plugin.errors import Refused
from cds_plugin.sealing.vault import Vault


class Spool:
    """The folders of one storage directory, and the ways of a file through them."""

    def __init__(self, directory: Path, vault: Vault | None = None) -> None:
        """`vault` says whether files are sealed and where they arrive; without one they are not."""
        self.directory = directory
        self.vault = vault or Vault(directory, incoming=directory / "incoming")
        self.files = directory / SPOOL_FOLDER
        self.quarantine = directory / QUARANTINE_FOLDER
        self.originals = directory / ORIGINALS_FOLDER
        self.incoming = self.vault.incoming
        self._arrived_before = directory / "incoming"

    def make_folders(self) -> None:
        """Create what is missing, durably."""
        for folder in (self.files, self.quarantine, self.originals, self.incoming):
            folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        for prefix in PREFIXES:
            (self.files / prefix).mkdir(mode=PRIVATE, exist_ok=True)
        sync_folder(self.files)
        sync_folder(self.directory)
        if self.vault.seals:
            _check_private(self.incoming)

    @contextmanager
    def incoming_folder(self) -> Iterator[Path]:
        """Yield an incoming folder of this process; those that dead processes left are removed first."""
        with locked(self.incoming, fcntl.LOCK_EX):
            for left in self._left():
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

    def _left(self) -> Iterator[Path]:
        """Yield what lies where objects arrive, or did before files were sealed."""
        yield from self.incoming.iterdir()
        if self.vault.seals and self._arrived_before.is_dir():
            yield from self._arrived_before.iterdir()

    def free_bytes(self) -> int:
        """Return what the file systems of the incoming folder and of the spool still take."""
        folders = (self.incoming, self.files) if self.vault.seals else (self.incoming,)
        return min(shutil.disk_usage(each).free for each in folders)

    @contextmanager
    def kept(self, arrived: Path, sha256: str) -> Iterator[str]:
        """Move a file into the spool durably and yield its path relative to the storage directory.

        Until the block ends no orphan sweep touches it: commit its row inside.
        """
        folder = self.files / sha256[:2]
        with locked(folder, fcntl.LOCK_SH) as descriptor:
            if self.vault.seals:
                self.vault.move_in(arrived, folder / f"{sha256}.dcm")
            else:
                _move_durably(arrived, folder / f"{sha256}.dcm")
            os.fsync(descriptor)
            yield f"{SPOOL_FOLDER}/{sha256[:2]}/{sha256}.dcm"

    @contextmanager
    def kept_original(self, arrived: Path, sha256: str) -> Iterator[str]:
        """Move the bytes that a repair replaces to the originals, durably; yield their relative path.

        Until the block ends neither purge nor orphan sweep touches them: commit the object's row inside. What
        a sender really sent stays as long as the repaired file does; of duplicates, that of the first one.
        """
        folder = self.originals / sha256[:2]
        if not folder.is_dir():
            folder.mkdir(mode=PRIVATE, exist_ok=True)
            sync_folder(self.originals)
        target = folder / f"{sha256}.dcm"
        with locked(folder, fcntl.LOCK_SH) as descriptor:
            self._move(arrived, target)
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
                self._move(source, place)
            os.fsync(descriptor)
        return str(target.relative_to(self.directory))

    def _move(self, arrived: Path, target: Path) -> None:
        """Give a file its final name, its bytes durable, sealed where files are."""
        if self.vault.seals:
            self.vault.move_in(arrived, target)
            return
        sync_file(arrived)
        arrived.replace(target)


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


def _check_private(folder: Path) -> None:
    """Raise Refused for a folder in a shared place that somebody else made first."""
    facts = folder.lstat()
    if not folder.is_symlink() and facts.st_uid == os.geteuid() and not facts.st_mode & 0o077:
        return
    raise Refused(
        "incoming_not_private",
        f"storage.incoming_directory: {folder} is not this user's alone.",
        "Find out who made it, remove it, or name another folder in memory.",
    )


def _remove_if_abandoned(folder: Path) -> None:
    if not folder.is_dir():
        folder.unlink(missing_ok=True)
        return
    with suppress(BlockingIOError), locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        shutil.rmtree(folder)
