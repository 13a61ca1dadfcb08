"""Result objects on disk: written whole, synced, named by their own content, so that nothing is overwritten.

A worker that lost its lease without noticing may finish late and write other bytes for the same object; under
a name of their own they can't replace those that the database vouches for.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cds_plugin.durable import PRIVATE, RESULTS_FOLDER, locked, sync_folder
from cds_plugin.errors import Unavailable
from cds_plugin.sealing.vault import Vault
from cds_plugin.study import Sha256


@dataclass(frozen=True, slots=True)
class KeptFile:
    """Where an object lies, relative to the storage directory; digest and size are of its plain bytes."""

    path: str
    sha256: Sha256
    size_bytes: int


@contextmanager
def kept(vault: Vault, contents: Sequence[bytes]) -> Iterator[list[KeptFile]]:
    """Write objects below results durably, sealed where files are, and yield where they lie, in that order.

    Until the block ends no orphan sweep touches them: commit their rows inside. Raises Unavailable where the
    disk fails.
    """
    with ExitStack() as held:
        try:
            files = [_keep(vault, content, held) for content in contents]
        except OSError as error:
            raise Unavailable(
                "results_folder",
                f"A result can't be written: {error.strerror}.",
                "Free or repair the storage.",
            ) from error
        yield files


def _keep(vault: Vault, content: bytes, held: ExitStack) -> KeptFile:
    storage = vault.directory
    sha256 = Sha256(hashlib.sha256(content).hexdigest())
    folder = _folder(storage / RESULTS_FOLDER, sha256[:2])
    descriptor = held.enter_context(locked(folder, fcntl.LOCK_SH))
    path = folder / f"{sha256}.dcm"
    _write(path, vault.as_kept(content))
    os.fsync(descriptor)
    return KeptFile(path.relative_to(storage).as_posix(), sha256, len(content))


def _folder(results: Path, prefix: str) -> Path:
    """Return the folder of a prefix, made durably where it was missing."""
    folder = results / prefix
    if not folder.is_dir():
        results.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        folder.mkdir(mode=PRIVATE, exist_ok=True)
        for each in (results, results.parent):
            sync_folder(each)
    return folder


def _write(path: Path, content: bytes) -> None:
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
