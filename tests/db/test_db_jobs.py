"""Leases: one owner at a time, nothing lost, nothing done by somebody whose time is over."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine
from ward_book import LEASE, NOW, a_closed_study, claimed

from cds_db import jobs, processes
from cds_db.models import Job
from cds_db.moves import ERROR_LENGTH
from cds_db.session import snapshot, transaction
from cds_db.stages import JobKind, JobState

LAPSED = NOW + LEASE + timedelta(seconds=1)


def due(engine: Engine, now: object = NOW) -> list[int]:
    with snapshot(engine) as session:
        return [job_id for job_id, _ in jobs.due(session, now, 9)]  # type: ignore[arg-type]


def the_job(engine: Engine, job_id: int) -> Job:
    with snapshot(engine) as session:
        return session.get_one(Job, job_id)


def test_a_claimed_job_is_nobody_elses_until_its_lease_runs_out(engine: Engine) -> None:
    revision_id, job_id = a_closed_study(engine)
    first = claimed(engine, job_id, "one")
    assert first == jobs.Claim(job_id, "one", JobKind.ANALYSIS, revision_id, 1)
    assert claimed(engine, job_id, "other") is None
    second = claimed(engine, job_id, "other", LAPSED)
    assert second is not None
    assert second.attempts == 2
    with transaction(engine) as session:
        assert not jobs.renew(session, job_id, "one", LAPSED)
        assert not jobs.finish(session, job_id, "one")
        assert not jobs.retry_later(session, job_id, "one", not_before=NOW, error="late")
        assert not jobs.bury(session, job_id, "one", "late")
        assert not jobs.hand_back(session, job_id, "one", not_before=NOW)
        assert jobs.finish(session, job_id, "other")
    assert the_job(engine, job_id).state is JobState.DONE
    assert claimed(engine, job_id, "one", LAPSED) is None


def test_a_renewed_lease_does_not_run_out(engine: Engine) -> None:
    _, job_id = a_closed_study(engine)
    claimed(engine, job_id, "one")
    with transaction(engine) as session:
        assert jobs.renew(session, job_id, "one", LAPSED + LEASE)
    assert claimed(engine, job_id, "other", LAPSED) is None
    assert due(engine, LAPSED) == []


def test_a_job_is_woken_at_once_again_after_a_while_and_when_its_worker_died(engine: Engine) -> None:
    _, job_id = a_closed_study(engine)
    assert due(engine) == [job_id]
    with transaction(engine) as session:
        jobs.mark_woken(session, [job_id], NOW)
    assert due(engine) == []
    assert due(engine, NOW + timedelta(seconds=jobs.WAKE_AGAIN_SECONDS)) == [job_id]
    claimed(engine, job_id)
    assert due(engine) == []
    assert due(engine, LAPSED) == [job_id]


def test_a_job_put_off_waits_for_its_time(engine: Engine) -> None:
    _, job_id = a_closed_study(engine)
    claimed(engine, job_id)
    later = NOW + timedelta(seconds=60)
    with transaction(engine) as session:
        assert jobs.retry_later(session, job_id, "worker", not_before=later, error="away\x00")
    assert due(engine) == []
    assert claimed(engine, job_id) is None
    assert due(engine, later) == [job_id]
    assert the_job(engine, job_id).last_error == "away\\x00"


def test_a_job_handed_back_counts_as_not_tried(engine: Engine) -> None:
    _, job_id = a_closed_study(engine)
    claimed(engine, job_id)
    with transaction(engine) as session:
        assert jobs.hand_back(session, job_id, "worker", not_before=NOW)
    again = claimed(engine, job_id)
    assert again is not None
    assert again.attempts == 1


def test_a_job_that_kills_every_worker_is_exhausted_and_buried(engine: Engine) -> None:
    _, job_id = a_closed_study(engine)
    now, claim = NOW, None
    for _ in range(jobs.MAX_ATTEMPTS + 1):
        assert claim is None or not claim.exhausted
        claim = claimed(engine, job_id, now=now)
        now += LEASE + timedelta(seconds=1)
    assert claim is not None
    assert claim.exhausted
    with transaction(engine) as session:
        assert jobs.bury(session, job_id, "worker", "killed every worker; " * 1000)
    assert len(the_job(engine, job_id).last_error or "") == ERROR_LENGTH
    assert the_job(engine, job_id).state is JobState.DEAD
    assert due(engine, now) == []


def test_a_job_that_does_not_exist_can_not_be_claimed(engine: Engine) -> None:
    assert claimed(engine, 4711) is None


def test_processes_are_alive_while_they_say_so(engine: Engine) -> None:
    later = NOW + timedelta(seconds=5)
    with transaction(engine) as session:
        processes.say_hello(session, "worker", "host", 1, NOW)
        processes.say_hello(session, "sweep", "host", 2, NOW)
        processes.say_hello(session, "worker", "host", 1, later)
    with transaction(engine) as session:
        (worker,) = processes.alive(session, later)
        assert (worker.name, worker.started_at, worker.seen_at) == ("worker", NOW, later)
        processes.say_goodbye(session, "worker", "host", 1)
        assert [each.name for each in processes.alive(session, NOW)] == ["sweep"]
        processes.say_hello(session, "deliver", "host", 3, NOW + timedelta(days=2))
        assert [each.name for each in processes.alive(session, NOW)] == ["deliver"]
