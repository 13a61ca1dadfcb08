"""Removes what the retention rules let go: marked, removed, noted as gone. Every step may be repeated.

The mark and its audit row are one transaction, so nothing is removed that the trail does not name. A file is
removed under the lock of its folder, after one more look at its row: who brings the same object again holds
that lock while its row is written, and takes the mark away. What a crash leaves is finished from the marks.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine

from cds_db import retention
from cds_db.retention import DueFile, Limits, Marked
from cds_db.session import snapshot, transaction
from cds_db.sparing import Spared
from cds_plugin.config import Settings
from cds_plugin.durable import PART, QUARANTINE_FOLDER, is_stored, locked

QUARANTINED_AT_ONCE = 500
"""Objects of the quarantine that one audit row names."""
OBJECT, NOTE = ".dcm", ".json"


@dataclass(frozen=True, slots=True)
class Purge:
    """One look at what the rules of `[retention]` let go at `now`, for `actor`."""

    settings: Settings
    engine: Engine
    now: datetime
    actor: str

    @property
    def limits(self) -> Limits:
        """Return which pictures and results are old enough."""
        return self.settings.retention.limits(self.now)

    def due(self) -> Iterator[Marked]:
        """Yield what would be marked, study by study, in one look; nothing is changed."""
        with snapshot(self.engine) as session:
            for study in retention.overdue_studies(session, self.limits):
                marked = retention.due_of(session, study, self.limits)
                if marked.files:
                    yield marked
        for some in self._old_in_quarantine():
            yield Marked("", quarantined=len(some))

    def spared(self) -> dict[Spared, int]:
        """Return how many old pictures and results stay all the same, by reason."""
        with snapshot(self.engine) as session:
            return retention.spared(session, self.limits)

    def pieces(self) -> Iterator[Marked]:
        """Purge in small pieces, each of them whole; yield what each marked, an empty one where nothing was.

        First comes what others left marked. Whoever has something else to do may stop after any piece.
        """
        stuck: set[DueFile] = set()
        yield from self._left(stuck)
        with snapshot(self.engine) as session:
            studies = retention.overdue_studies(session, self.limits)
        for study in studies:
            while (marked := self._mark(study)).files:
                yield marked
                yield from self._left(stuck)
        for some in self._old_in_quarantine():
            yield Marked("", quarantined=self._purge_quarantined(some))

    def unfinished(self) -> int:
        """Return how many marked files are still there: their folder was busy, or the storage is away."""
        with snapshot(self.engine) as session:
            return retention.due_count(session)

    def _mark(self, study: str) -> Marked:
        with transaction(self.engine) as session:
            return retention.mark(session, study, self.limits, now=self.now, actor=self.actor)

    def _left(self, stuck: set[DueFile]) -> Iterator[Marked]:
        """Remove what is marked; what can't be removed now joins `stuck` and holds up nothing else."""
        while self._remove_some(stuck):
            yield Marked("")

    def _remove_some(self, stuck: set[DueFile]) -> bool:
        """Try to remove some files that are marked; return whether any was tried. Not while a backup runs."""
        with suppress(BlockingIOError, FileNotFoundError), self._no_backup():
            return self._remove_marked(stuck)
        return False

    def _no_backup(self) -> AbstractContextManager[int]:
        return locked(self.settings.storage.directory, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _remove_marked(self, stuck: set[DueFile]) -> bool:
        with snapshot(self.engine) as session:
            files = set(retention.due_files(session, beside=len(stuck))) - stuck
        gone = {each for each in files if all([self._is_removed(path) for path in each.paths])}
        stuck |= files - gone
        if gone:
            with transaction(self.engine) as session:
                retention.note_gone(session, gone, now=datetime.now(UTC))
        return bool(files)

    def _is_removed(self, path: str) -> bool:
        """Remove a file no row wants any more; False where that can't be done now.

        Its folder is busy, the storage is away or fails, or somebody changed the path to one not ours.
        """
        file = self.settings.storage.directory / path
        if not is_stored(path):
            return False
        try:
            with locked(file.parent, fcntl.LOCK_EX | fcntl.LOCK_NB) as descriptor:
                with snapshot(self.engine) as session:
                    wanted = retention.is_wanted(session, path)
                if not wanted:
                    file.unlink(missing_ok=True)
                    os.fsync(descriptor)
        except FileNotFoundError:
            return file.parent.parent.is_dir()
        except OSError:
            return False
        return True

    def _old_in_quarantine(self) -> Iterator[list[Path]]:
        found = [each for each in self._quarantined() if self._is_old(each)]
        for start in range(0, len(found), QUARANTINED_AT_ONCE):
            yield found[start : start + QUARANTINED_AT_ONCE]

    def _quarantined(self) -> list[Path]:
        """Return the objects, and what a crash left of one: a note alone, a draft."""
        if self.settings.retention.quarantine_days is None:
            return []
        found = sorted((self.settings.storage.directory / QUARANTINE_FOLDER).glob("*"))
        return [each for each in found if each.suffix != NOTE or not each.with_suffix(OBJECT).exists()]

    def _is_old(self, quarantined: Path) -> bool:
        days = self.settings.retention.quarantine_days
        if days is None:
            return False
        with suppress(FileNotFoundError):
            return quarantined.stat().st_mtime < (self.now - timedelta(days=days)).timestamp()
        return False

    def _purge_quarantined(self, some: Sequence[Path]) -> int:
        with suppress(BlockingIOError), self._no_backup():
            return self._remove_quarantined(some)
        return 0

    def _remove_quarantined(self, some: Sequence[Path]) -> int:
        """Audit and remove objects in quarantine; return how many.

        The files are the record here. What a crash leaves between the audit row and the removal is audited
        once more by the next purge; the note goes first, for it is found by its object.
        """
        rule = f"quarantine_days = {self.settings.retention.quarantine_days:g}"
        with locked(some[0].parent, fcntl.LOCK_EX) as descriptor:
            old = [each for each in some if self._is_old(each)]
            if not old:
                return 0
            names = [each.stem for each in old if each.suffix != PART]
            with transaction(self.engine) as session:
                retention.note_quarantine(session, rule, names, now=self.now, actor=self.actor)
            for each in old:
                each.with_suffix(NOTE).unlink(missing_ok=True)
                each.unlink(missing_ok=True)
            os.fsync(descriptor)
        return len(old)
