"""Result objects on disk: written whole, synced, named by their own content, so that nothing is overwritten.

A worker that lost its lease without noticing may finish late and write other bytes for the same object; under
a name of their own they can't replace those that the database vouches for.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cds_plugin.errors import Unavailable
from cds_plugin.study import Sha256

RESULTS_FOLDER = "results"


@dataclass(frozen=True, slots=True)
class KeptFile:
    """Where an object's bytes lie, relative to the storage directory, and their digest."""

    path: str
    sha256: Sha256
    size_bytes: int


def keep(storage: Path, content: bytes) -> KeptFile:
    """Write an object's bytes below `storage`/results durably; raises Unavailable where the disk fails."""
    sha256 = Sha256(hashlib.sha256(content).hexdigest())
    relative = Path(RESULTS_FOLDER, sha256[:2], f"{sha256}.dcm")
    try:
        _write(storage / relative, content)
    except OSError as error:
        raise Unavailable(
            "results_folder", f"A result can't be written: {error.strerror}.", "Free or repair the storage."
        ) from error
    return KeptFile(relative.as_posix(), sha256, len(content))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(scratch).rename(path)
    except OSError:
        Path(scratch).unlink(missing_ok=True)
        raise
    for folder in (path.parent, path.parent.parent):
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
