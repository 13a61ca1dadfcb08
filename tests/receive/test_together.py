"""Commits of several senders at once: all or each by itself, and nobody answered before."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from drawn_objects import a_photograph
from sqlalchemy import event
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from ward import Ward

from cds_db import audit
from cds_db.events import Event
from cds_db.session import Writing, transaction
from cds_plugin.receive.answers import Status
from cds_plugin.receive.together import TOGETHER, Commits
from cds_plugin.receive.turn import turns

NEIGHBOURS = 6
NOW = datetime(2026, 1, 31, tzinfo=UTC)


def row(actor: str) -> Callable[[Writing], None]:
    def work(writing: Writing) -> None:
        audit.append(writing, event=Event.PEER_QUERIED, actor=actor, now=NOW)

    return work


def at_once(ward: Ward, *works: Callable[[Writing], None]) -> list[BaseException | None]:
    """Write from as many threads while somebody else has the turn; return what each was told."""
    turn = turns(ward.engine)
    commits = Commits(ward.engine, turn)
    with ThreadPoolExecutor(len(works)) as threads:
        with turn:
            told: list[Future[None]] = [threads.submit(commits.write, works[0])]
            while not commits._leading.locked():
                time.sleep(0.01)
            told += [threads.submit(commits.write, work) for work in works[1:]]
            while len(commits._waiting) < len(works) - 1:
                time.sleep(0.01)
        return [each.exception(20) for each in told]


def commits_of(ward: Ward) -> list[object]:
    seen: list[object] = []
    event.listen(ward.engine, "commit", seen.append)
    return seen


def actors(ward: Ward) -> list[str]:
    return sorted(each.actor for each in ward.audit(Event.PEER_QUERIED))


def test_who_waits_is_committed_together(ward: Ward) -> None:
    seen = commits_of(ward)
    assert at_once(ward, *(row(f"A{n}") for n in range(NEIGHBOURS + 1))) == [None] * (NEIGHBOURS + 1)
    assert len(seen) == 2, "the first alone, then all who came meanwhile"
    assert actors(ward) == [f"A{n}" for n in range(NEIGHBOURS + 1)]


def test_no_transaction_has_more_than_its_share(ward: Ward) -> None:
    seen = commits_of(ward)
    told = at_once(ward, *(row(f"A{n}") for n in range(2 * TOGETHER + 2)))
    assert told == [None] * len(told) and len(seen) == 4
    assert len(actors(ward)) == len(told)


@pytest.mark.parametrize("fault", [OSError, ValueError, SQLAlchemyError, KeyError])
def test_one_that_fails_does_not_fail_its_neighbours(ward: Ward, fault: type[Exception]) -> None:
    def bad(writing: Writing) -> None:
        row("BAD")(writing)
        raise fault("no")

    works = [row("A0"), row("A1"), bad, row("A2")]
    told = at_once(ward, *works)
    assert [type(each) for each in told] == [type(None), type(None), fault, type(None)]
    assert actors(ward) == ["A0", "A1", "A2"]


def test_a_commit_that_fails_is_told_to_everybody_and_nothing_is_kept(ward: Ward) -> None:
    def full(_connection: object) -> None:
        raise OperationalError("COMMIT", {}, OSError("disk I/O error"))

    event.listen(ward.engine, "commit", full)
    told = at_once(ward, *(row(f"A{n}") for n in range(NEIGHBOURS)))
    event.remove(ward.engine, "commit", full)
    assert all(isinstance(each, OperationalError) for each in told)
    assert actors(ward) == []


def test_a_commit_that_failed_once_is_done_again_one_by_one(ward: Ward) -> None:
    failed: list[object] = []

    def once(connection: object) -> None:
        if len(commits) == 1 and not failed:
            failed.append(connection)
            raise OperationalError("COMMIT", {}, OSError("disk I/O error"))
        commits.append(connection)

    commits: list[object] = []
    event.listen(ward.engine, "commit", once)
    assert at_once(ward, *(row(f"A{n}") for n in range(NEIGHBOURS))) == [None] * NEIGHBOURS
    assert failed and len(commits) == NEIGHBOURS
    assert actors(ward) == [f"A{n}" for n in range(NEIGHBOURS)]


def test_nobody_returns_before_the_commit(ward: Ward) -> None:
    """Another connection sees the row of each as soon as `write` has returned."""
    commits = Commits(ward.engine, turns(ward.engine))
    unseen: list[str] = []

    def sender(number: int) -> None:
        for count in range(10):
            name = f"S{number}.{count}"
            commits.write(row(name))
            if name not in actors(ward):
                unseen.append(name)

    threads = [threading.Thread(target=sender, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not unseen and len(actors(ward)) == 40


def test_senders_at_once_are_answered_each_for_its_own(ward: Ward) -> None:
    """Duplicates, another patient of the same study and other bytes of the same object, side by side."""
    first = a_photograph()
    altered = a_photograph(first.StudyInstanceUID, seed=5)
    altered.SOPInstanceUID = altered.file_meta.MediaStorageSOPInstanceUID = first.SOPInstanceUID
    stranger = a_photograph(first.StudyInstanceUID, seed=6)
    stranger.PatientID = "SOMEBODY ELSE"
    others = [a_photograph(seed=number) for number in range(8, 12)]
    with ward.listening(), ThreadPoolExecutor(8) as threads:
        assert ward.sent(first) == [Status.SUCCESS]
        batches = [[first], [altered], [stranger], *([each] for each in others)]
        assert all(each == [0] for each in threads.map(lambda batch: ward.sent(*batch), batches))
    events = ward.events()
    assert events.count("instance-duplicate") == 1 == events.count("instance-altered")
    assert events.count("study-conflict") == 1
    assert len(ward.instances()) == 7 == len(ward.spooled())


def test_sqlite_is_not_asked_while_another_writes(ward: Ward) -> None:
    """The turn is held for each transaction: a writer of this product that has it keeps us out."""
    turn = turns(ward.engine)
    commits = Commits(ward.engine, turn)
    with ThreadPoolExecutor(1) as threads:
        with turn, transaction(ward.engine) as session:
            audit.append(session, event=Event.PEER_QUERIED, actor="FIRST", now=NOW)
            told = threads.submit(commits.write, row("SECOND"))
            with suppress(TimeoutError):
                told.result(0.2)
            assert not told.done()
        told.result(20)
    assert actors(ward) == ["FIRST", "SECOND"]
