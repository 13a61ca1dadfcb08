"""Which studies are under way, and how long after a fault those that were so then had reached the PACS."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from sender import Ledger
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError
from studies import Study

from cds_db.models import Instance, Revision
from cds_db.session import snapshot
from cds_db.stages import Stage

POLL_SECONDS = 0.5


@dataclass(eq=False)
class Fault:
    """One fault that was made; times in seconds since the start of the campaign."""

    kind: str
    began: float
    ended: float | None = None
    studies: frozenset[str] = frozenset()
    """Under way when it was over."""
    recovered: float | None = None
    """When the last of them was complete."""
    waiting: set[str] = field(default_factory=set)
    note: str = ""


class Monitor:
    """Looks at the database twice a second; while it is away nothing is known to be complete."""

    def __init__(self, engine: Engine, ledger: Ledger) -> None:
        self._engine = engine
        self._ledger = ledger
        self._started = time.monotonic()
        self._settled: dict[str, int] = {}
        """Study -> how many of its objects had been acknowledged when it was complete."""
        self._watched: list[Fault] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def __enter__(self) -> Monitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def now(self) -> float:
        """Return the seconds since the campaign began."""
        return time.monotonic() - self._started

    def begun(self) -> set[str]:
        """Return the studies that are begun and not complete."""
        return {each.uid for each in list(self._ledger.studies) if not self._is_settled(each)}

    def under_way(self) -> set[str]:
        """Return those of them of which something was acknowledged."""
        return {each.uid for each in list(self._ledger.studies) if _pending(each, self._settled)}

    def watch(self, fault: Fault) -> None:
        """Note when everything that is under way now is complete."""
        fault.ended = self.now()
        fault.studies = frozenset(self.under_way())
        fault.waiting = set(fault.studies)
        if fault.waiting:
            with self._lock:
                self._watched.append(fault)

    def _is_settled(self, study: Study) -> bool:
        return bool(study.acknowledged) and not _pending(study, self._settled)

    def _run(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            try:
                self._look()
            except SQLAlchemyError:
                continue

    def _look(self) -> None:
        pending = [each for each in list(self._ledger.studies) if _pending(each, self._settled)]
        counts = {each.uid: len(each.acknowledged) for each in pending}
        wanted = {each.uid: len({sent.sop_instance_uid for sent in each.acknowledged}) for each in pending}
        stored, unfinished = self._state(wanted)
        done = {uid for uid in wanted if stored.get(uid, 0) >= wanted[uid] and uid not in unfinished}
        self._settled |= {uid: counts[uid] for uid in done}
        self._note(done)

    def _state(self, uids: Iterable[str]) -> tuple[dict[str, int], set[str]]:
        """Return how many pictures of each study are stored, and which studies have work to do."""
        mine = list(uids)
        counted = (
            select(Instance.study_instance_uid, func.count())
            .where(
                Instance.study_instance_uid.in_(mine), Instance.in_use, Instance.reason_not_analysed.is_(None)
            )
            .group_by(Instance.study_instance_uid)
        )
        open_ones = select(Revision.study_instance_uid).where(
            Revision.study_instance_uid.in_(mine), Revision.stage != Stage.COMPLETE
        )
        with snapshot(self._engine) as session:
            return {uid: n for uid, n in session.execute(counted)}, set(session.scalars(open_ones))

    def _note(self, done: set[str]) -> None:
        with self._lock:
            for fault in self._watched:
                fault.waiting -= done
                if not fault.waiting:
                    fault.recovered = self.now()
            self._watched = [fault for fault in self._watched if fault.waiting]


def _pending(study: Study, settled: dict[str, int]) -> bool:
    return bool(study.acknowledged) and settled.get(study.uid) != len(study.acknowledged)
