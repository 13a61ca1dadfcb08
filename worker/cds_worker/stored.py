"""The stored file of a picture: it is there and it is the one that was received, or who is at fault."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cds_plugin.errors import Unavailable
from cds_plugin.sealing.vault import Vault

ACTION = "Restore the file from a backup, or send the picture again under a new SOP Instance UID."


class StoredFileLost(Unavailable):
    """The file of one picture is missing, unreadable or altered, while its storage is there."""


@contextmanager
def stored_file(vault: Vault, path: str, sha256: str) -> Iterator[Path]:
    """Yield where the plain bytes of a stored file can be read, after reading all of them.

    Raises StoredFileLost for one that is not as it was received, and plain Unavailable where the whole
    storage is away: an unmounted disk is no picture's fault, however long it lasts; KeyMissing likewise.
    """
    try:
        found, _ = vault.digest_of(path)
    except OSError as error:
        if not (vault.directory / path).parent.is_dir():
            raise Unavailable(
                "storage_away", "The folder of the stored files is missing.", "Mount storage.directory."
            ) from error
        raise StoredFileLost(
            "stored_file_lost", f"The stored file can't be read: {error.strerror}.", ACTION
        ) from error
    if found != sha256:
        raise StoredFileLost("stored_file_altered", "The stored file is not the one received.", ACTION)
    with vault.plain(path) as file:
        yield file
