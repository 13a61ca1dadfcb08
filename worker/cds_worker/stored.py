"""The stored file of a picture: it is there and it is the one that was received, or who is at fault."""

from __future__ import annotations

from pathlib import Path

from cds_plugin.errors import Unavailable
from cds_plugin.receive.spool import sha256_of

ACTION = "Restore the file from a backup, or send the picture again under a new SOP Instance UID."


class StoredFileLost(Unavailable):
    """The file of one picture is missing, unreadable or altered, while its storage is there."""


def stored_file(storage: Path, path: str, sha256: str) -> Path:
    """Return the file at `path` below `storage` after reading all of it.

    Raises StoredFileLost for one that is not as it was received, and plain Unavailable where the whole
    storage is away: an unmounted disk is no picture's fault, however long it lasts.
    """
    file = storage / path
    try:
        found = sha256_of(file)
    except OSError as error:
        if not file.parent.is_dir():
            raise Unavailable(
                "storage_away", "The folder of the stored files is missing.", "Mount storage.directory."
            ) from error
        raise StoredFileLost(
            "stored_file_lost", f"The stored file can't be read: {error.strerror}.", ACTION
        ) from error
    if found != sha256:
        raise StoredFileLost("stored_file_altered", "The stored file is not the one received.", ACTION)
    return file
