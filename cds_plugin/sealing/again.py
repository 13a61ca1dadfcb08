"""Seals every stored file with the newest key: what was kept plain, and what older keys sealed."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cds_plugin.durable import PART, STORED_FOLDERS, locked, sync_file
from cds_plugin.errors import Refused
from cds_plugin.sealing.sealed import HEAD_BYTES, key_id_of, sealed
from cds_plugin.sealing.vault import Vault

OTHER_BYTES_NS = 1
"""The age of a file stays, but who compares times to find changed files must find it."""
SEALED_SUFFIXES = frozenset({".dcm", ".json"})


def to_be_sealed(vault: Vault) -> list[Path]:
    """Return the stored files that the newest key did not seal. Raises Refused where none is set."""
    keys = vault.keys()
    if keys is None:
        raise Refused("not_sealing", "storage.encryption_key_file is not set.", "Set it first.")
    return [file for file, key_id in _stored(vault) if key_id != keys.newest.id]


def stored_by_key(vault: Vault) -> Iterator[bytes | None]:
    """Yield for each stored file the id of the key that sealed it, None for a plain one."""
    yield from (key_id for _, key_id in _stored(vault))


def seal_again(vault: Vault, file: Path) -> None:
    """Seal one file in place, durably; readers have the old or the new one.

    The folder's lock keeps away whoever removes files or brings this one anew. Raises as `Vault.open` does:
    FileNotFoundError for one that a purge removed meanwhile.
    """
    keys = vault.keys()
    assert keys is not None
    draft = file.with_name(f"{uuid.uuid4().hex}{PART}")
    with locked(file.parent, fcntl.LOCK_EX) as folder:
        try:
            facts = file.stat()
            with vault.open(file) as plain, draft.open("xb") as copy:
                os.fchmod(copy.fileno(), 0o600)
                for chunk in sealed(plain, keys.newest):
                    copy.write(chunk)
            sync_file(draft)
            os.utime(draft, ns=(facts.st_atime_ns, facts.st_mtime_ns + OTHER_BYTES_NS))
            draft.replace(file)
            os.fsync(folder)
        finally:
            draft.unlink(missing_ok=True)


def _stored(vault: Vault) -> Iterator[tuple[Path, bytes | None]]:
    """Yield every stored file with the id of its key; one that a purge removes meanwhile is passed over."""
    for place in STORED_FOLDERS:
        found = (vault.directory / place).rglob("*")
        for each in sorted(each for each in found if each.suffix in SEALED_SUFFIXES):
            with suppress(FileNotFoundError), each.open("rb") as opened:
                yield each, key_id_of(opened.read(HEAD_BYTES))
