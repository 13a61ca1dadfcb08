"""Pulls studies: ask what the peer has, compare with what is held, fetch the rest, note how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from cds_db import pulls
from cds_db.pulls import Pull, PullEnd
from cds_db.session import snapshot, transaction
from cds_db.stages import PulledState
from cds_plugin.errors import CdsError, Refused, Unavailable
from cds_plugin.pull.bounds import TRIES, TRY_AGAIN_SECONDS
from cds_plugin.pull.desk import Desk, Office
from cds_plugin.pull.found import Arrival, Finder, FoundInstance, FoundStudy, Retriever

ACTOR = "pull"
DID_NOT_COME = "the peer did not send it"


@dataclass(frozen=True, slots=True)
class StudyEnd:
    """How one study ended; `skipped` where it was complete before and has not grown since."""

    study_instance_uid: str
    end: PullEnd
    held_before: int = 0
    skipped: bool = False
    problem: CdsError | None = None


@dataclass(slots=True)
class Tally:
    """What came of one study so far; told from the thread that receives."""

    note: Callable[[Arrival], None]
    fetched: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    def tell(self, arrival: Arrival) -> None:
        """Count one instance and note it."""
        if arrival.state is PulledState.HELD:
            self.fetched += 1
            self.failures.pop(arrival.sop_instance_uid, None)
        else:
            self.failures[arrival.sop_instance_uid] = arrival.error or arrival.state
        self.note(arrival)


@dataclass(frozen=True, slots=True)
class Puller:
    """Pulls from one peer; `progress` is told how many instances are done and how many more there are.

    `again` also looks into studies that were complete, and fetches what was refused before.
    """

    office: Office
    finder: Finder
    retriever_at: Callable[[Desk], Retriever]
    modalities: tuple[str, ...] = ()
    again: bool = False
    progress: Callable[[int, int], None] = lambda done, total: None

    def pull(self, study: FoundStudy) -> StudyEnd:
        """Bring one study in; failures are in what is returned, never raised but for the database's."""
        pull = self._pull_of(study)
        with snapshot(self._engine) as session:
            if not self.again and pulls.is_done(session, pull):
                nothing = PullEnd(study.instances or 0, study.instances or 0, 0, {})
                return StudyEnd(study.study_instance_uid, nothing, nothing.held, skipped=True)
        try:
            found = self.finder.instances(study.study_instance_uid, self.modalities)
        except CdsError as error:
            return self._nothing_found(pull, error)
        if not found:
            nothing_there = Refused("unknown_study", "the peer has nothing of this study", "Check the UID.")
            return self._nothing_found(pull, nothing_there)
        return self._bring(pull, found)

    def _bring(self, pull: Pull, found: Sequence[FoundInstance]) -> StudyEnd:
        held = self._held(found)
        refused = self._refused(pull)
        missing = [each for each in found if each.sop_instance_uid not in held]
        wanted = [each for each in missing if each.sop_instance_uid not in refused]
        uids = [each.sop_instance_uid for each in missing]
        self._write(lambda session, now: pulls.begin(session, pull, uids, instances=len(found), now=now))
        self.progress(len(found) - len(missing), len(found))
        tally = Tally(lambda arrival: self._note(pull, arrival))
        problem = self._fetched(wanted, tally) if wanted else None
        return self._finished(pull, found, len(held), refused, tally, problem)

    def _fetched(self, wanted: Sequence[FoundInstance], tally: Tally) -> CdsError | None:
        """Fetch what is wanted, again after a break; return what stopped it, if anything did."""
        problem: CdsError | None = None
        with self.office.desk() as desk:
            for wait in waits():
                time.sleep(wait)
                over = tally.failures.keys() | self._held(wanted)
                missing = [each for each in wanted if each.sop_instance_uid not in over]
                if not missing:
                    return None
                try:
                    self.retriever_at(desk).retrieve(missing, tally.tell)
                    return None
                except Unavailable as error:
                    problem = error
                except Refused as error:
                    return error
        return problem

    def _finished(
        self,
        pull: Pull,
        found: Sequence[FoundInstance],
        held_before: int,
        refused: dict[str, str],
        tally: Tally,
        problem: CdsError | None,
    ) -> StudyEnd:
        held = self._held(found)
        missing = [each.sop_instance_uid for each in found if each.sop_instance_uid not in held]
        said = refused | tally.failures
        failures = {uid: said.get(uid, DID_NOT_COME) for uid in missing}
        end = PullEnd(len(found), len(held), tally.fetched, failures, problem.message if problem else None)
        self._write(lambda session, now: pulls.finish(session, pull, end, now=now))
        return StudyEnd(pull.study_instance_uid, end, held_before, problem=problem)

    def _nothing_found(self, pull: Pull, problem: CdsError) -> StudyEnd:
        end = PullEnd(0, 0, 0, {}, problem.message)

        def write(session: Session, now: datetime) -> None:
            pulls.begin(session, pull, [], instances=0, now=now)
            pulls.finish(session, pull, end, now=now)

        self._write(write)
        return StudyEnd(pull.study_instance_uid, end, problem=problem)

    def _held(self, found: Sequence[FoundInstance]) -> set[str]:
        """Return the instances whose row is committed and whose file is there: a lost one is fetched anew."""
        with snapshot(self._engine) as session:
            paths = pulls.held_paths(session, [each.sop_instance_uid for each in found])
        directory: Path = self.office.reception.book.settings.storage.directory
        return {uid for uid, path in paths.items() if (directory / path).is_file()}

    def _refused(self, pull: Pull) -> dict[str, str]:
        if self.again:
            return {}
        with snapshot(self._engine) as session:
            return pulls.refused_before(session, pull)

    def _note(self, pull: Pull, arrival: Arrival) -> None:
        """Write a failure at once; what came has its row already."""
        self.progress(1, 0)
        if arrival.state is PulledState.HELD:
            return
        uid, state, error = arrival.sop_instance_uid, arrival.state, arrival.error
        self._write(lambda session, now: pulls.note_failure(session, pull.peer, uid, state, error, now=now))

    def _pull_of(self, study: FoundStudy) -> Pull:
        return Pull(
            peer=self.office.entry.name,
            study_instance_uid=study.study_instance_uid,
            modalities=" ".join(sorted(self.modalities)),
            said=study.instances,
            actor=ACTOR,
        )

    def _write(self, change: Callable[[Session, datetime], None]) -> None:
        with self._turn, transaction(self._engine) as session:
            change(session, datetime.now(UTC))

    @property
    def _engine(self) -> Engine:
        return self.office.reception.engine

    @property
    def _turn(self) -> AbstractContextManager[Any]:
        return self.office.reception.turn


def waits() -> Iterator[float]:
    """Return how long to wait before each try of a study, or of a question."""
    yield 0.0
    for number in range(TRIES - 1):
        yield TRY_AGAIN_SECONDS * 2**number
