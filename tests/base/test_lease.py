"""A lease is renewed while the work lasts, and once it is somebody else's nothing more is written."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError, OperationalError
from ward_book import a_closed_study, claimed, events

from cds_db import audit
from cds_db.events import Event
from cds_db.models import Job
from cds_db.session import snapshot, transaction
from cds_db.stages import JobState
from cds_plugin.lease import LEASE_SECONDS, Lease, LeaseLost, let_go

OFTEN = 0.05


@pytest.fixture
def job(engine: Engine) -> int:
    """A job that `me` claimed a moment ago."""
    _, job = a_closed_study(engine)
    assert claimed(engine, job, "me", datetime.now(UTC))
    return job


def inherit(engine: Engine, job: int) -> None:
    """Let the job be claimed by somebody else, as if its lease had run out."""
    assert claimed(engine, job, "heir", datetime.now(UTC) + timedelta(seconds=2 * LEASE_SECONDS))


def row(engine: Engine, job: int) -> Job:
    with snapshot(engine) as session:
        return session.get_one(Job, job)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(OFTEN)


def test_renewed_while_the_work_lasts_and_no_longer(engine: Engine, job: int) -> None:
    first = row(engine, job).lease_until
    with Lease(engine, job, "me", renew_seconds=OFTEN):
        until(lambda: row(engine, job).lease_until != first)
    last = row(engine, job).lease_until
    time.sleep(10 * OFTEN)
    assert row(engine, job).lease_until == last


def test_the_work_learns_that_its_job_is_somebody_elses(engine: Engine, job: int) -> None:
    with Lease(engine, job, "me", renew_seconds=OFTEN) as lease:
        lease.check()
        inherit(engine, job)
        until(lambda: lease.lost)
        with pytest.raises(LeaseLost):
            lease.check()
    assert row(engine, job).lease_owner == "heir"


def test_the_fence_rolls_back_what_was_written_too_late(engine: Engine, job: int) -> None:
    lease = Lease(engine, job, "me")
    with transaction(engine) as session:
        lease.fence(session)
    inherit(engine, job)
    with pytest.raises(LeaseLost), transaction(engine) as session:
        audit.append(
            session, event=Event.ANALYSIS_FINISHED, actor="too late", now=datetime.now(UTC), detail={}
        )
        lease.fence(session)
    assert "analysis-finished" not in events(engine)
    assert lease.lost


def test_a_job_that_was_taken_away_is_lost_too(engine: Engine, job: int) -> None:
    with transaction(engine) as session:
        session.get_one(Job, job).state = JobState.DEAD
    with pytest.raises(LeaseLost), transaction(engine) as session:
        Lease(engine, job, "me").fence(session)


def test_a_job_is_let_go_uncounted_where_the_database_failed(engine: Engine, job: int) -> None:
    let_go(engine, job, "somebody else", OperationalError("", None, Exception()))
    let_go(engine, job, "me", IntegrityError("", None, Exception()))
    assert (row(engine, job).state, row(engine, job).attempts) == (JobState.RUNNING, 1)
    let_go(engine, job, "me", OperationalError("", None, Exception()))
    assert (row(engine, job).state, row(engine, job).attempts) == (JobState.WAITING, 0)
