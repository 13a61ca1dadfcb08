"""Files that may change while a process runs: taken into use once they settled, and audited."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog
from sqlalchemy.orm import Session

from cds_db import audit
from cds_db.columns import Json
from cds_db.events import Event, Outcome

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Reload:
    """What became of changed files: they are in use, or `problem` says why what was before still is."""

    event: Event
    problem: str | None = None
    detail: Mapping[str, Json] = field(default_factory=dict)


class Reloader:
    """Looks whether files changed; safe to use from every thread.

    `look` returns what differs whenever one of them was written, replaced or removed. `take` takes them into
    use, and returns what is to be told of it.
    """

    def __init__(self, look: Callable[[], Hashable], take: Callable[[], Reload | None]) -> None:
        self._look = look
        self._take = take
        self._lock = threading.Lock()
        self._used = self._seen = look()
        self._untold: Reload | None = None

    def reload_if_changed(self) -> Reload | None:
        """Take changed files into use; None where nothing changed. Call it about once a second.

        They are taken once they stayed the same from one call to the next, so that several files, or the
        parts of one, can be written one after the other.
        """
        with self._lock:
            untold, self._untold = self._untold, None
            before, self._seen = self._seen, self._look()
            if self._seen == self._used or self._seen != before:
                return untold
            self._used = self._seen
            return self._take() or untold

    def put_back(self, reload: Reload) -> None:
        """Have `reload_if_changed` return this again, because it could not be told."""
        with self._lock:
            self._untold = reload


def state_of(file: Path | None) -> tuple[str, int, int, int] | None:
    """Return what changes whenever the file is written, replaced or removed."""
    if file is None:
        return None
    try:
        found = file.stat()
    except OSError as error:
        return type(error).__name__, 0, 0, 0
    return "file", found.st_ino, found.st_size, found.st_mtime_ns


def note_reload(session: Session, reload: Reload, actor: str) -> None:
    """Log and audit what became of files that changed under the part `actor`."""
    if reload.problem is None:
        log.info(str(reload.event), part=actor, **reload.detail)
    else:
        log.error(f"{reload.event}: refused, what was before stays", part=actor, problem=reload.problem)
    audit.append(
        session,
        event=reload.event,
        actor=actor,
        now=datetime.now(UTC),
        outcome=Outcome.SUCCESS if reload.problem is None else Outcome.MINOR_FAILURE,
        detail={"problem": reload.problem} if reload.problem else reload.detail,
    )
