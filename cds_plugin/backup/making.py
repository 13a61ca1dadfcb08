"""Makes a backup of a system that goes on working: the database first, then the files that it names.

Files are written once and named by their content, and a row is committed only after its file is durable. So
whatever the copied rows speak of is there, unless a retention rule removes it meanwhile: the storage
directory is locked against that, and nobody else waits for this lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import structlog
from sqlalchemy import Engine

from cds_db import audit
from cds_db.copying import Copied, copy_out
from cds_db.events import Event, Outcome
from cds_db.migrate import needed
from cds_db.session import transaction
from cds_plugin.backup.manifest import FILES, FORMAT, Manifest, lines_of
from cds_plugin.backup.places import Target, opened_target
from cds_plugin.config import Settings
from cds_plugin.durable import PART, QUARANTINE_FOLDER, is_stored, locked

SCRATCH = ".cds-backup-"
MISSING_NAMED = 1000
"""The manifest and the audit row name so many missing files; their number stands beside them."""


log = structlog.get_logger("backup")

Progress = Callable[[int, int], None]


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
    progress: Progress,
) -> Made:
    """Make a backup at `out`; `progress` is told how many files are done, of how many.

    A file that a row speaks of and that is not there makes no backup fail: it is named. Raises Refused, and
    OSError where a disk fails.
    """
    storage = settings.storage.directory
    with opened_target(out) as target, _files_stay(storage):
        draft = _Draft(target, now.strftime("%Y%m%dT%H%M%S%fZ"))
        quarantined = [each.relative_to(storage).as_posix() for each in _quarantined(storage)]
        with _scratch_folder(out.parent) as scratch:
            copied = copy_out(engine, scratch)
            draft.put_database(scratch)
        draft.put_settings(settings)
        draft.put_files(storage, [*copied.files, *quarantined], progress)
        manifest = draft.finish(copied, now)
    _audit(engine, manifest, len(draft.missing), now, actor)
    return Made(manifest, len(draft.missing))


@dataclass(slots=True)
class _Draft:
    """A backup that is being made: what is in it so far, and which files were not there."""

    target: Target
    stamp: str
    sums: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    size_bytes: int = 0

    def put(self, name: str, source: Path) -> None:
        """Copy a file under a name."""
        self.sums[name], length = self.target.put(name, source)
        self.size_bytes += length

    def put_database(self, scratch: Path) -> None:
        """Copy the files of the database."""
        for file in sorted(scratch.iterdir()):
            self.put(f"database-{self.stamp}/{file.name}", file)

    def put_settings(self, settings: Settings) -> None:
        """Write the settings for a person to read, without passwords; nobody restores them."""
        name = f"settings-{self.stamp}.json"
        content = (json.dumps(settings.redacted(), indent=2, sort_keys=True) + "\n").encode()
        self.target.write(name, content)
        self.sums[name] = hashlib.sha256(content).hexdigest()
        self.size_bytes += len(content)

    def put_files(self, storage: Path, wanted: Sequence[str], progress: Progress) -> None:
        """Copy stored files; one that is not there, or whose path leads out of the storage, is noted."""
        for number, path in enumerate(wanted):
            progress(number, len(wanted))
            try:
                if not is_stored(path):
                    raise FileNotFoundError
                self.put(f"{FILES}/{path}", storage / path)
            except FileNotFoundError:
                self.missing.append(path)
        progress(len(wanted), len(wanted))

    def finish(self, copied: Copied, now: datetime) -> Manifest:
        """Write the list and the manifest; only now there is a backup."""
        lines = lines_of(self.sums)
        manifest = Manifest(
            format=FORMAT,
            stamp=self.stamp,
            created_at=now.isoformat(),
            software=version("cds-plugin"),
            engine=copied.engine,
            schema=needed(),
            columns=copied.columns,
            sealed=copied.sealed,
            head=copied.head,
            files=len(self.sums),
            size_bytes=self.size_bytes,
            sums_sha256=hashlib.sha256(lines).hexdigest(),
            missing=tuple(self.missing[:MISSING_NAMED]),
        )
        self.target.write(manifest.sums, lines)
        self.target.finish(manifest, self.sums.keys())
        return manifest


@contextmanager
def _scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield a private folder in `parent`, locked; those that killed backups left there are removed."""
    for left in parent.glob(f"{SCRATCH}*"):
        _remove_unused(left)
    with tempfile.TemporaryDirectory(dir=parent, prefix=SCRATCH) as name, locked(Path(name), fcntl.LOCK_EX):
        yield Path(name)


def _remove_unused(folder: Path) -> None:
    """Remove a folder that nobody works in; another user's is left to him."""
    if folder.is_symlink() or not folder.is_dir():
        return
    with (
        suppress(BlockingIOError, FileNotFoundError, PermissionError),
        locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB),
    ):
        shutil.rmtree(folder)
        log.warning("removed-what-an-interrupted-backup-left", folder=str(folder))


@contextmanager
def _files_stay(storage: Path) -> Iterator[None]:
    """While the block runs no retention rule removes a file."""
    storage.mkdir(parents=True, exist_ok=True)
    with locked(storage, fcntl.LOCK_SH):
        yield


def _quarantined(storage: Path) -> list[Path]:
    found = (storage / QUARANTINE_FOLDER).glob("*")
    return sorted(each for each in found if each.is_file() and each.suffix != PART)


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
