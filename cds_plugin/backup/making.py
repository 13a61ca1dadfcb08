"""Makes a backup of a system that goes on working: the database first, then the files that it names.

Files are written once and named by their content, and a row is committed only after its file is durable. So
whatever the copied rows speak of is there, unless a retention rule removes it meanwhile: the storage
directory is locked against that, and nobody else waits for this lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import Engine

from cds_db import audit
from cds_db.copying import copy_out
from cds_db.events import Event, Outcome
from cds_db.migrate import needed
from cds_db.session import transaction
from cds_plugin.backup.manifest import FILES, FORMAT, Manifest, lines_of
from cds_plugin.backup.places import Target, opened_target, scratch_folder
from cds_plugin.config import Settings
from cds_plugin.durable import PART, QUARANTINE_FOLDER, locked

MISSING_NAMED = 1000
"""The manifest and the audit row name so many missing files; their number stands beside them."""


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that is complete, and how many files of it were there already."""

    manifest: Manifest
    missing: int


def back_up(
    settings: Settings,
    engine: Engine,
    out: Path,
    *,
    now: datetime,
    actor: str,
    progress: Callable[[int, int], None],
) -> Made:
    """Make a backup at `out`; `progress` is told how many files are done, of how many.

    A file that a row speaks of and that is not there makes no backup fail: it is named. Raises Refused.
    """
    stamp = now.strftime("%Y%m%dT%H%M%S%fZ")
    storage = settings.storage.directory
    with opened_target(out) as target, _files_stay(storage):
        sums: dict[str, str] = {}
        quarantined = [each.relative_to(storage).as_posix() for each in _quarantined(storage)]
        with scratch_folder(out.parent) as scratch:
            copied = copy_out(engine, scratch)
            size = _put_database(target, scratch, f"database-{stamp}", sums)
        size += _put_settings(target, settings, stamp, sums)
        wanted = [*copied.files, *quarantined]
        missing: list[str] = []
        for number, path in enumerate(wanted):
            progress(number, len(wanted))
            try:
                sums[f"{FILES}/{path}"], length = target.put(f"{FILES}/{path}", storage / path)
                size += length
            except FileNotFoundError:
                missing.append(path)
        progress(len(wanted), len(wanted))
        lines = lines_of(sums)
        manifest = Manifest(
            format=FORMAT,
            stamp=stamp,
            created_at=now.isoformat(),
            software=version("cds-plugin"),
            engine=copied.engine,
            schema=needed(),
            columns=copied.columns,
            sealed=copied.sealed,
            head=copied.head,
            files=len(sums),
            size_bytes=size,
            sums_sha256=hashlib.sha256(lines).hexdigest(),
            missing=tuple(missing[:MISSING_NAMED]),
        )
        target.write(manifest.sums, lines)
        target.finish(manifest, sums.keys())
    _audit(engine, manifest, len(missing), now, actor)
    return Made(manifest, len(missing))


@contextmanager
def _files_stay(storage: Path) -> Iterator[None]:
    """While the block runs no retention rule removes a file."""
    storage.mkdir(parents=True, exist_ok=True)
    with locked(storage, fcntl.LOCK_SH):
        yield


def _quarantined(storage: Path) -> list[Path]:
    found = (storage / QUARANTINE_FOLDER).glob("*")
    return sorted(each for each in found if each.is_file() and each.suffix != PART)


def _put_database(target: Target, scratch: Path, folder: str, sums: dict[str, str]) -> int:
    size = 0
    for file in sorted(scratch.iterdir()):
        sums[f"{folder}/{file.name}"], length = target.put(f"{folder}/{file.name}", file)
        size += length
    return size


def _put_settings(target: Target, settings: Settings, stamp: str, sums: dict[str, str]) -> int:
    """Write the settings for a person to read, without passwords; nobody restores them."""
    name = f"settings-{stamp}.json"
    content = (json.dumps(settings.redacted(), indent=2, sort_keys=True) + "\n").encode()
    target.write(name, content)
    sums[name] = hashlib.sha256(content).hexdigest()
    return len(content)


def _audit(engine: Engine, manifest: Manifest, missing: int, now: datetime, actor: str) -> None:
    with transaction(engine) as session:
        audit.append(
            session,
            event=Event.BACKUP_MADE,
            actor=actor,
            now=now,
            outcome=Outcome.MINOR_FAILURE if missing else Outcome.SUCCESS,
            detail={
                "stamp": manifest.stamp,
                "files": manifest.files,
                "size_bytes": manifest.size_bytes,
                "missing": missing,
                "sealed": manifest.sealed,
                "head": manifest.head,
                "sums_sha256": manifest.sums_sha256,
            },
        )
