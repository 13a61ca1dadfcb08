"""A database that lets claims through and takes no results, as a full disk does: nothing is given up."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text, update
from worker_home import SETTINGS, Home

from cds_db.jobs import LOST_MOST, MAX_ATTEMPTS
from cds_db.migrate import upgrade
from cds_db.models import Job
from cds_db.session import transaction
from cds_db.stages import JobKind, JobState
from cds_worker.inference import Analyst

pytestmark = pytest.mark.slow

Studies = Callable[[int], tuple[str, list[Path]]]
FAILING = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'so it is' USING ERRCODE = '{code}'; END $$;
CREATE TRIGGER failing BEFORE INSERT ON results FOR EACH ROW EXECUTE FUNCTION fail();
"""
WELL_AGAIN = "DROP TRIGGER failing ON results"
DISK_FULL, NUMERIC_OUT_OF_RANGE = "53100", "22003"


@pytest.fixture
def home(tmp_path: Path, postgres_url: str) -> Home:
    """A home whose database is PostgreSQL."""
    home = Home(tmp_path)
    home.config.write_text(f'{SETTINGS}[database]\nurl = "{postgres_url}"\n')
    upgrade(postgres_url)
    return home


def do(home: Home, statement: str) -> None:
    with transaction(home.engine) as session:
        session.execute(text(statement))


def job_of(home: Home, job: int) -> Job:
    with transaction(home.engine) as session:
        return session.get_one(Job, job)


def make_due(home: Home) -> None:
    with transaction(home.engine) as session:
        session.execute(update(Job).values(not_before=datetime.now(UTC)))


def test_a_full_disk_of_the_database_costs_no_attempt(home: Home, analyst: Analyst, a_study: Studies) -> None:
    study, files = a_study(1)
    job = home.close(home.receive(files))
    do(home, FAILING.format(code=DISK_FULL))
    for _ in range(max(MAX_ATTEMPTS, LOST_MOST[JobKind.ANALYSIS]) + 1):
        analyst.work(job)
        waiting = job_of(home, job)
        assert (waiting.state, waiting.attempts, waiting.lost) == (JobState.WAITING, 0, 0)
        assert waiting.last_error == "the database failed"
        make_due(home)
    do(home, WELL_AGAIN)
    analyst.work(job)
    status = home.status(study)
    assert (status.stage, job_of(home, job).state) == ("complete", JobState.DONE)
    assert {each.kind for each in status.results} == {"seg", "sr", "overlay"}


def test_what_the_values_of_a_result_cause_is_counted(home: Home, analyst: Analyst, a_study: Studies) -> None:
    _, files = a_study(1)
    job = home.close(home.receive(files))
    do(home, FAILING.format(code=NUMERIC_OUT_OF_RANGE))
    analyst.work(job)
    left = job_of(home, job)
    assert (left.state, left.attempts) == (JobState.RUNNING, 1)
