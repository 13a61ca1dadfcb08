"""What a backup says of itself: a manifest, and a list of SHA-256 that `sha256sum -c` reads too."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cds_db.migrate import Schema, compared
from cds_plugin.durable import is_stored
from cds_plugin.errors import Refused

FORMAT = "cds-plugin backup 1"
MANIFEST = "manifest.json"
FILES = "files"
"""The folder of a backup that holds the files, under their paths in the storage directory."""
MANIFEST_BYTES = 1 << 20
LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._/-]{0,511})")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One backup. `stamp` tells its files from those of an earlier one in the same folder."""

    format: str
    stamp: str
    created_at: str
    software: str
    engine: str
    """"sqlite" or "postgresql"."""
    schema: str
    columns: Mapping[str, tuple[str, ...]]
    sealed: int
    """Rows of the audit chain, and the hash of the last one: noted elsewhere it proves the chain."""
    head: str
    files: int
    size_bytes: int
    sums_sha256: str
    missing: tuple[str, ...]
    """Files that rows speak of and that were not there, up to a thousand."""

    @property
    def sums(self) -> str:
        """Return the name of the list of SHA-256."""
        return f"SHA256SUMS-{self.stamp}"

    @property
    def database(self) -> str:
        """Return the folder of the database's files."""
        return f"database-{self.stamp}"

    def as_bytes(self) -> bytes:
        """Return it as JSON."""
        return (json.dumps(asdict(self), indent=2, sort_keys=True) + "\n").encode()


def manifest_of(content: bytes) -> Manifest:
    """Return a manifest that this version can restore. Raises Refused."""
    try:
        found: Any = json.loads(content)
        manifest = TypeAdapter(Manifest).validate_python(found)
    except (ValueError, ValidationError, RecursionError) as error:
        raise _not_ours(f"{MANIFEST} can't be read ({type(error).__name__})") from error
    if manifest.format != FORMAT:
        raise _not_ours(f"its format is {manifest.format!r}, not {FORMAT!r}")
    if not re.fullmatch(r"[0-9TZ]{1,32}", manifest.stamp) or manifest.engine not in ("sqlite", "postgresql"):
        raise _not_ours(f"{MANIFEST} says what no backup says")
    if compared(manifest.schema) not in (Schema.OLD, Schema.CURRENT):
        raise Refused(
            "backup_too_new",
            f"The backup has schema {manifest.schema}, which this version does not know.",
            "Restore it with the version that made it, or a later one.",
        )
    return manifest


def lines_of(sums: Mapping[str, str]) -> bytes:
    """Return names and their SHA-256 as `sha256sum` writes them."""
    return "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(sums.items())).encode()


def sums_of(content: bytes, manifest: Manifest) -> dict[str, str]:
    """Return name -> SHA-256 of every file of a backup. Raises Refused for a name that leaves its folders."""
    sums: dict[str, str] = {}
    for line in content.decode("ascii", "replace").splitlines():
        match = LINE.fullmatch(line)
        if match is None or not _is_inside(match[2], manifest):
            raise _not_ours(f"{manifest.sums} names a file that no backup has")
        sums[match[2]] = match[1]
    return sums


def _is_inside(name: str, manifest: Manifest) -> bool:
    folder, _, rest = name.partition("/")
    if folder == FILES:
        return is_stored(rest)
    is_table = folder == manifest.database and rest not in ("", ".", "..") and "/" not in rest
    return is_table or name == f"settings-{manifest.stamp}.json"


def _not_ours(what: str) -> Refused:
    return Refused("not_a_backup", f"This is no backup of this product: {what}.", "Choose another one.")
