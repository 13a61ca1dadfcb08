"""Puts a backup back: all of it is verified first, files come before the database that names them.

Until all of it is there a mark lies in the storage directory, and no part of the product starts: an
interrupted restore is begun anew.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine, make_url, select
from sqlalchemy.exc import SQLAlchemyError

from cds_db import audit
from cds_db.copying import SIDE_FILES, copy_in, is_empty
from cds_db.events import Event
from cds_db.migrate import Schema, schema
from cds_db.models import Process
from cds_db.session import open_engine, snapshot, transaction
from cds_plugin.backup.manifest import FILES, Manifest
from cds_plugin.backup.places import Source, new_private
from cds_plugin.config import Settings
from cds_plugin.database import RESTORE_MARK
from cds_plugin.durable import PART, PRIVATE, STORED_FOLDERS, locked, sync_folder
from cds_plugin.errors import Refused
from cds_plugin.sealing.vault import incoming_of

ALIVE_SECONDS = 30.0
"""Every process says hello each second; one that was silent for so long is dead."""
ASIDE = "before-restore"
SCRATCH = ".restoring-"
"""Holds the plain copy of the database; what an interrupted restore left is removed by the next one."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back, what the audit chain says of it, and where what was there before lies now."""

    manifest: Manifest
    verified: audit.Verification
    aside: Path | None


def verify(source: Source, progress: Progress) -> None:
    """Read every file of a backup and compare its SHA-256. Raises Refused for the first that differs."""
    for number, name in enumerate(sorted(source.sums)):
        progress(number, len(source.sums))
        source.copy(name)
    progress(len(source.sums), len(source.sums))


def check_place(settings: Settings, manifest: Manifest, *, replace: bool) -> bool:
    """Return whether there is anything to replace. Raises Refused where the backup must not go there.

    A running system is always refused, one that holds something unless `replace` says so.
    """
    engine = make_url(settings.database.url).get_backend_name()
    if engine != manifest.engine:
        raise Refused(
            "other_engine",
            f"The backup is of {manifest.engine}, database.url names {engine}.",
            f"Name a {manifest.engine} database.",
        )
    running = _running(settings)
    if running:
        raise Refused(
            "still_running",
            f"This installation is in use: {', '.join(running)}.",
            f"Stop it; what was killed counts as running for {ALIVE_SECONDS:g} s.",
        )
    there = _holds_files(settings.storage.directory) or not is_empty(settings.database.url)
    if there and not replace:
        raise Refused(
            "not_empty",
            "Database or storage directory hold something.",
            "Restore into an empty one, or say --replace: files are put aside, the database is replaced.",
        )
    return there


def restore(
    settings: Settings, source: Source, *, replace: bool, now: datetime, actor: str, progress: Progress
) -> Restored:
    """Put a backup back that was verified; return what was done. Raises Refused, OSError where a disk fails.

    From the first change to the last a mark keeps every part of the product from starting.
    """
    there = check_place(settings, source.manifest, replace=replace)
    storage, url = settings.storage.directory, settings.database.url
    mark = storage / RESTORE_MARK
    storage.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    mark.touch()
    sync_folder(storage)
    aside = _put_aside(storage, url, now) if there else None
    _put_files(source, storage, progress)
    _put_database(source, storage, url)
    engine = open_engine(url)
    try:
        verified = _audited(engine, source.manifest, now, actor)
    finally:
        engine.dispose()
    mark.unlink()
    sync_folder(storage)
    return Restored(source.manifest, verified, aside)


def _put_database(source: Source, storage: Path, url: str) -> None:
    for left in storage.glob(f"{SCRATCH}*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=storage, prefix=SCRATCH) as scratch:
        folder = Path(scratch)
        for name in (each for each in source.sums if each.startswith(f"{source.manifest.database}/")):
            _put(source, name, folder / Path(name).name)
        copy_in(url, folder, source.manifest.columns, source.manifest.schema)


def _audited(engine: Engine, manifest: Manifest, now: datetime, actor: str) -> audit.Verification:
    """Note the restore, seal what was not sealed when the copy was made, and verify the whole chain."""
    with transaction(engine) as session:
        audit.append(
            session,
            event=Event.BACKUP_RESTORED,
            actor=actor,
            now=now,
            detail={"stamp": manifest.stamp, "sealed": manifest.sealed, "head": manifest.head},
        )
    sealed = 1
    while sealed:
        with transaction(engine) as session:
            sealed = audit.seal(session, now)
    with snapshot(engine) as session:
        return audit.verify(session, datetime.now(UTC))


def _running(settings: Settings) -> list[str]:
    """Return what uses this installation, by its signs of life and by the locks of its folders."""
    return [*_alive(settings.database.url), *_locked(incoming_of(settings))]


def _alive(url: str) -> list[str]:
    """Return who is alive, asking for no column that an older schema lacks."""
    if schema(url) in (Schema.MISSING, Schema.FOREIGN):
        return []
    engine = open_engine(url)
    try:
        with snapshot(engine) as session:
            since = datetime.now(UTC) - timedelta(seconds=ALIVE_SECONDS)
            seen = select(Process.name, Process.pid, Process.host).where(Process.seen_at >= since)
            return [f"{name} (process {pid} on {host})" for name, pid, host in session.execute(seen)]
    except SQLAlchemyError as error:
        raise Refused(
            "database_unreadable",
            f"The database that is there can't be asked who uses it ({type(error).__name__}).",
            "Run: cds-plugin db upgrade. If it is broken remove it, once everything is stopped.",
        ) from error
    finally:
        engine.dispose()


def _locked(incoming: Path) -> list[str]:
    folders = [each for each in incoming.iterdir() if each.is_dir()] if incoming.is_dir() else []
    return ["a listener that holds a folder of incoming"] if any(map(_is_held, folders)) else []


def _is_held(folder: Path) -> bool:
    with suppress(BlockingIOError), locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        return False
    return True


def _holds_files(storage: Path) -> bool:
    return any(file.is_file() for place in STORED_FOLDERS for file in (storage / place).rglob("*"))


def _put_aside(storage: Path, url: str, now: datetime) -> Path:
    """Move the files that are there into a folder of their own, an SQLite database beside itself."""
    name = f"{ASIDE}-{now.strftime('%Y%m%dT%H%M%S%fZ')}"
    aside = storage / name
    aside.mkdir(mode=PRIVATE, parents=True)
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        for suffix in ("", *SIDE_FILES):
            with suppress(FileNotFoundError):
                Path(f"{parsed.database}{suffix}").rename(f"{parsed.database}.{name}{suffix}")
    for place in (each for each in STORED_FOLDERS if (storage / each).is_dir()):
        (storage / place).rename(aside / place)
    return aside


def _put_files(source: Source, storage: Path, progress: Progress) -> None:
    names = sorted(each for each in source.sums if each.startswith(f"{FILES}/"))
    folders = {storage}
    for number, name in enumerate(names):
        progress(number, len(names))
        target = storage / name.removeprefix(f"{FILES}/")
        target.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        _put(source, name, target)
        folders.update((target.parent, target.parent.parent))
    for folder in folders:
        sync_folder(folder)
    progress(len(names), len(names))


def _put(source: Source, name: str, target: Path) -> None:
    """Write a file of the backup durably, as old as it was: the quarantine is purged by the age of its files.

    Raises Refused where its bytes changed since it was verified.
    """
    draft = target.with_name(target.name + PART)
    with new_private(draft) as copy:
        source.copy(name, copy)
        copy.flush()
        os.fsync(copy.fileno())
    modified = source.modified(name)
    os.utime(draft, (modified, modified))
    draft.replace(target)
