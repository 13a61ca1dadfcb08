"""Files that survive a crash once their folder is synced, and the removal of those that no row speaks of."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

ORPHAN_GRACE_SECONDS = 3600.0
"""A file without a row may still be committed; after an hour nobody will."""
PREFIXES = tuple(f"{number:02x}" for number in range(256))
"""Folders of files that are named by their SHA-256: its first two digits."""
SPOOL_FOLDER = "spool"
RESULTS_FOLDER = "results"
QUARANTINE_FOLDER = "quarantine"
ORIGINALS_FOLDER = "originals"
STORED_FOLDERS = (SPOOL_FOLDER, RESULTS_FOLDER, ORIGINALS_FOLDER, QUARANTINE_FOLDER)
"""Folders whose files are kept; what is still coming in was acknowledged to nobody."""
PART = ".part"
"""The end of the name of what is being written; left behind it is garbage."""
PRIVATE = 0o700
"""Folders hold patient data: only the account that runs the product may look."""


def is_stored(path: str) -> bool:
    """Return whether a path of a row lies in STORED_FOLDERS: who changes rows must not reach other files."""
    parts = PurePosixPath(path).parts
    return (
        "/".join(parts) == path and ".." not in parts and len(parts) in (2, 3) and parts[0] in STORED_FOLDERS
    )


def sync_file(path: Path) -> None:
    """Make a file's bytes durable; its name is durable once its folder was synced."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    with locked(folder, fcntl.LOCK_SH) as descriptor:
        os.fsync(descriptor)


@contextmanager
def locked(folder: Path, how: int) -> Iterator[int]:
    """Yield a descriptor of `folder` that holds its flock; with LOCK_NB raises BlockingIOError where held."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        yield descriptor
    finally:
        os.close(descriptor)


def remove_orphans(
    folder: Path, root: Path, known: Callable[[Sequence[str]], set[str]], older_than: float
) -> int:
    """Delete the files in `folder` last written before `older_than` (seconds since 1970) that have no row.

    `known` returns which of the paths, relative to `root`, stand in the database. Who keeps a file holds the
    folder's lock (LOCK_SH) until its row is committed; such a folder is left for the next round. Returns
    the number of files deleted.
    """
    with suppress(BlockingIOError), locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        old = [each for each in folder.iterdir() if each.stat().st_mtime < older_than]
        paths = {str(each.relative_to(root)): each for each in old}
        orphans = paths.keys() - known(tuple(paths)) if paths else set()
        for path in orphans:
            paths[path].unlink()
        return len(orphans)
    return 0
