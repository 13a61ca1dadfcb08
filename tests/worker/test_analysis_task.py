"""The analysis task in this process: a second run, a lost lease, a poison study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from worker_home import Home

from cds_db import jobs
from cds_db.delivery import delivery_objects
from cds_db.handling import HIGH, Handling
from cds_db.jobs import MAX_ATTEMPTS
from cds_db.models import Delivery, Job
from cds_db.session import transaction
from cds_db.stages import JobState
from cds_plugin.lease import LEASE_SECONDS
from cds_worker import inference
from cds_worker.inference import Analyst

pytestmark = pytest.mark.slow

Studies = Callable[[int], tuple[str, list[Path]]]
LATER = timedelta(seconds=2 * LEASE_SECONDS)


def test_a_second_run_changes_nothing(home: Home, analyst: Analyst, a_study: Studies) -> None:
    study, files = a_study(1)
    job = home.close(home.receive(files))
    analyst.work(job)
    first = home.status(study)
    assert (first.stage, job_of(home, job).state) == ("complete", JobState.DONE)
    kept = snapshot(home)
    analyst.work(job)
    assert home.status(study) == first
    assert snapshot(home) == kept


def test_results_found_are_not_built_again(home: Home, analyst: Analyst, a_study: Studies) -> None:
    study, files = a_study(2)
    job = home.close(home.receive(files))
    interrupted = iter((False, True))
    replace(analyst, stopping=lambda: next(interrupted)).work(job)
    assert {each.source for each in home.status(study).results} == {f"{study}.1"}
    assert job_of(home, job).state == JobState.WAITING
    assert job_of(home, job).attempts == 0
    kept = snapshot(home)
    analyst.work(job)
    assert home.status(study).stage == "complete"
    assert kept.items() <= snapshot(home).items()


def test_a_large_study_is_handed_back_after_its_turn_and_an_urgent_one_goes_before_its_rest(
    home: Home, analyst: Analyst, a_study: Studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "TURN_SECONDS", 0.01)
    large, files = a_study(2)
    job = home.close(home.receive(files))
    analyst.work(job)
    assert {each.source for each in home.status(large).results} == {f"{large}.1"}
    assert (job_of(home, job).state, job_of(home, job).attempts) == (JobState.WAITING, 0)
    urgent, files = a_study(1)
    urgent_job = home.close(home.receive(files))
    with transaction(home.engine) as session:
        session.get_one(Job, urgent_job).priority = HIGH
    analyst.work(job)
    assert (home.status(urgent).stage, home.status(large).stage) == ("complete", "analysing")


def test_deliveries_are_made_for_the_rule_of_the_sender(
    home: Home, analyst: Analyst, a_study: Studies
) -> None:
    study, files = a_study(1)
    analyst.work(home.close(home.receive(files, calling_ae="ANOTHER")))
    status = home.status(study)
    assert status.stage == "delivering"
    assert [each.destination for each in status.deliveries] == ["pacs"]


def test_results_go_where_the_rule_said_when_the_pictures_came(
    home: Home, analyst: Analyst, a_study: Studies
) -> None:
    study, files = a_study(1)
    wanted = Handling(5.0, routes={"pacs": ("overlay", "sr"), "ris": ("sr",)})
    analyst.work(home.close(home.receive(files, handling=wanted)))
    assert [each.destination for each in home.status(study).deliveries] == ["pacs", "ris"]
    with transaction(home.engine) as session:
        kinds = {each.destination: each.kinds for each in session.query(Delivery)}
        reports = {
            each.destination: [result.kind for result in delivery_objects(session, each.id)[1]]
            for each in session.query(Delivery)
        }
    assert kinds == {"pacs": "overlay sr", "ris": "sr"}
    assert (sorted(reports["pacs"]), reports["ris"]) == (["overlay", "sr"], ["sr"])


def test_a_message_brings_the_study_whose_turn_it_is(home: Home, analyst: Analyst, a_study: Studies) -> None:
    routine, first = a_study(1)
    job = home.close(home.receive(first))
    urgent, second = a_study(1)
    other = home.close(home.receive(second, handling=Handling(5.0, HIGH, {})))
    analyst.work(job)
    assert (home.status(urgent).stage, home.status(routine).stage) == ("complete", "queued")
    analyst.work(other)
    assert home.status(routine).stage == "complete", "the message of one brings the other"
    analyst.work(job)


def test_nobody_else_is_disturbed_while_the_lease_holds(
    home: Home, analyst: Analyst, a_study: Studies
) -> None:
    study, files = a_study(1)
    job = home.close(home.receive(files))
    with transaction(home.engine) as session:
        assert jobs.claim(session, job, owner="somebody", now=now(), lease=timedelta(seconds=LEASE_SECONDS))
    analyst.work(job)
    assert home.status(study).stage == "queued"


def test_work_whose_lease_went_to_somebody_else_writes_nothing(
    home: Home, analyst: Analyst, a_study: Studies
) -> None:
    study, files = a_study(2)
    job = home.close(home.receive(files))

    heirs = []

    def lose_the_lease_after_the_first_picture() -> bool:
        """Let it go to a worker that looks the same: in containers host name and process id may be equal."""
        if home.status(study).results:
            with transaction(home.engine) as session:
                session.execute(update(Job).values(lease_until=now() - LATER))
            heirs.append(analyst._taken(job))
        return False

    replace(analyst, stopping=lose_the_lease_after_the_first_picture).work(job)
    assert {each.source for each in home.status(study).results} == {f"{study}.1"}
    (heir,) = heirs
    assert job_of(home, job).lease_owner == heir.owner


def test_a_study_that_kills_its_worker_even_while_it_is_refused_is_buried(
    home: Home, analyst: Analyst, a_study: Studies
) -> None:
    study, files = a_study(1)
    job = home.close(home.receive(files))
    with transaction(home.engine) as session:
        crashed = {"attempts": MAX_ATTEMPTS + 1, "lease_owner": "dead", "lease_until": now() - LATER}
        session.execute(update(Job).values(state=JobState.RUNNING, **crashed))
    analyst.work(job)
    assert home.status(study).stage == "failed"
    assert job_of(home, job).state == JobState.DEAD
    assert "crashed" in str(home.status(study).failure)


def job_of(home: Home, job: int) -> Job:
    with transaction(home.engine) as session:
        return session.get_one(Job, job)


def snapshot(home: Home) -> dict[str, float]:
    """Return every result file with its time of change."""
    folder = home.settings.storage.directory / "results"
    return {str(path): path.stat().st_mtime for path in folder.rglob("*.dcm")}


def now() -> datetime:
    return datetime.now(UTC)
