"""What is wrong with one picture ends in that picture's report; the study's other pictures are analysed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from answering_models import Segmenter
from pydicom import Dataset, dcmread
from sqlalchemy import select, update
from worker_home import Home

from cds_db.jobs import MAX_ATTEMPTS
from cds_db.models import AuditEntry, Instance, Job, Result
from cds_db.session import transaction
from cds_db.stages import JobState
from cds_plugin.results.build import BuiltResult
from cds_plugin.study import Analysis, Rgb
from cds_worker.app import Seat
from cds_worker.inference import RETRY_SECONDS, Analyst
from cds_worker.pipeline import Pipeline
from cds_worker.stage import DeviceFailed, StageFailed

pytestmark = pytest.mark.slow

Studies = Callable[[int], tuple[str, list[Path]]]


class Crash(BaseException):
    """The end of the process, as far as the code under test can tell."""


def test_a_model_that_fails_on_one_picture_costs_that_picture_only(
    home: Home, analyst: Analyst, segmenter: Segmenter, a_study: Studies
) -> None:
    def fail(number: int) -> None:
        if number == 2:
            raise IndexError("patient DOE^JANE at position 7")

    segmenter.fail = fail
    study, files = a_study(3)
    analyst.work(home.close(home.receive(files)))
    assert home.status(study).stage == "complete"
    assert kinds(home, study, 1) == kinds(home, study, 3) == {"seg", "sr", "overlay"}
    assert "The stage segmentation failed on this picture (IndexError)." in texts(report(home, study, 2))
    refusal = refusals(home)[f"{study}.2"]
    assert refusal["code"] == "stage_failed"
    assert "DOE" not in str(refusals(home))


def test_a_failure_that_does_not_come_again_costs_nothing(
    home: Home, analyst: Analyst, segmenter: Segmenter, a_study: Studies
) -> None:
    def fail(_number: int) -> None:
        if segmenter.asked == 1:
            raise MemoryError

    segmenter.fail = fail
    study, files = a_study(1)
    analyst.work(home.close(home.receive(files)))
    assert kinds(home, study, 1) == {"seg", "sr", "overlay"}
    assert refusals(home) == {}


def test_no_picture_is_blamed_for_a_device_that_failed(
    home: Home, analyst: Analyst, segmenter: Segmenter, a_study: Studies
) -> None:
    def fail(_number: int) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    segmenter.fail, segmenter.device_is_well = fail, False
    study, files = a_study(1)
    job = home.close(home.receive(files))
    with pytest.raises(DeviceFailed):
        analyst.work(job)
    assert (job_of(home, job).state, job_of(home, job).attempts) == (JobState.WAITING, 1)
    assert (home.status(study).stage, home.status(study).results) == ("analysing", ())
    make_due(home)
    seat = Seat(home.settings, ("cpu",), analyst=analyst)
    with pytest.raises(SystemExit):
        seat.analyse(job)
    assert refusals(home) == {}


def test_a_picture_that_crashes_the_worker_again_and_again_is_refused_and_the_others_are_not(
    home: Home, analyst: Analyst, segmenter: Segmenter, a_study: Studies
) -> None:
    def fail(number: int) -> None:
        if number == 2:
            raise Crash

    segmenter.fail = fail
    study, files = a_study(3)
    job = home.close(home.receive(files))
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(Crash):
            analyst.work(job)
        make_due(home)
    analyst.work(job)
    assert home.status(study).stage == "complete"
    assert kinds(home, study, 1) == kinds(home, study, 3) == {"seg", "sr", "overlay"}
    assert f"Its analysis crashed {MAX_ATTEMPTS} times." in texts(report(home, study, 2))
    assert refusals(home)[f"{study}.2"]["code"] == "analysis_crashes"
    assert segmenter.asked == 2 + MAX_ATTEMPTS


def test_attempts_are_those_without_progress(
    home: Home, analyst: Analyst, segmenter: Segmenter, a_study: Studies
) -> None:
    """Three crashes on top of three, but each after another picture was done."""
    crashes = iter([True, False] * 3)

    def fail(_number: int) -> None:
        if next(crashes):
            raise Crash

    segmenter.fail = fail
    study, files = a_study(3)
    job = home.close(home.receive(files))
    with transaction(home.engine) as session:
        session.execute(update(Job).values(attempts=MAX_ATTEMPTS - 2))
    for _ in range(3):
        with pytest.raises(Crash):
            analyst.work(job)
        make_due(home)
    analyst.work(job)
    assert home.status(study).stage == "complete"
    assert refusals(home) == {}


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_a_stored_file_that_stays_lost_is_refused_and_the_others_wait_for_nothing(
    home: Home, analyst: Analyst, a_study: Studies, damage: str
) -> None:
    study, files = a_study(3)
    job = home.close(home.receive(files))
    lost = stored(home, f"{study}.1")
    content = lost.read_bytes()
    lost.unlink() if damage == "missing" else lost.write_bytes(content[:-1] + b"?")
    waits = []
    for _ in range(MAX_ATTEMPTS - 1):
        analyst.work(job)
        assert (home.status(study).stage, kinds(home, study, 1)) == ("analysing", set())
        assert kinds(home, study, 2) == kinds(home, study, 3) == {"seg", "sr", "overlay"}
        waits.append(round((job_of(home, job).not_before - now()).total_seconds() / RETRY_SECONDS))
        make_due(home)
    assert waits == sorted(waits)
    analyst.work(job)
    assert home.status(study).stage == "complete"
    sr = report(home, study, 1)
    assert "not analysed: The stored file" in texts(sr)
    assert (sr.StudyInstanceUID, sr.PatientID) == (study, dcmread(files[0]).PatientID)
    assert refusals(home)[f"{study}.1"]["code"] in {"stored_file_lost", "stored_file_altered"}


def test_a_stored_file_that_comes_back_is_analysed(home: Home, analyst: Analyst, a_study: Studies) -> None:
    study, files = a_study(1)
    job = home.close(home.receive(files))
    file = stored(home, f"{study}.1")
    away = file.rename(file.with_suffix(".away"))
    analyst.work(job)
    assert home.status(study).stage == "analysing"
    away.rename(file)
    make_due(home)
    analyst.work(job)
    assert kinds(home, study, 1) == {"seg", "sr", "overlay"}


def test_a_storage_that_is_away_refuses_no_picture_however_long_it_lasts(
    home: Home, analyst: Analyst, a_study: Studies
) -> None:
    study, files = a_study(1)
    job = home.close(home.receive(files))
    spool = home.settings.storage.directory / "spool"
    unmounted = spool.rename(spool.with_name("unmounted"))
    spool.mkdir()
    for _ in range(MAX_ATTEMPTS + 2):
        analyst.work(job)
        make_due(home)
    assert (job_of(home, job).attempts, home.status(study).stage) == (0, "analysing")
    spool.rmdir()
    unmounted.rename(spool)
    analyst.work(job)
    assert kinds(home, study, 1) == {"seg", "sr", "overlay"}


class Choosy(Pipeline):
    """Makes no result from the header of picture 1, only from what the database knows of it."""

    def results(
        self, header: Dataset, rgb: Rgb | None, analysis: Analysis, revision: int, *more: Any, **named: Any
    ) -> tuple[Analysis, tuple[BuiltResult, ...]]:
        if header.SOPInstanceUID.endswith(".1") and "Rows" in header:
            raise StageFailed("results", "ValueError")
        return Pipeline.results(self, header, rgb, analysis, revision, *more, **named)


def test_a_header_that_no_result_can_be_made_from_is_replaced_by_what_is_known(
    home: Home, analyst: Analyst, a_study: Studies
) -> None:
    parts = {each.name: getattr(analyst.pipeline, each.name) for each in fields(Pipeline)}
    study, files = a_study(2)
    replace(analyst, pipeline=Choosy(**parts)).work(home.close(home.receive(files)))
    assert home.status(study).stage == "complete"
    assert "The stage results failed on this picture (ValueError)." in texts(report(home, study, 1))
    assert report(home, study, 1).PatientID == dcmread(files[0]).PatientID
    assert kinds(home, study, 2) == {"seg", "sr", "overlay"}


def kinds(home: Home, study: str, number: int) -> set[str]:
    """Return the kinds of result that a picture has."""
    return {each.kind for each in home.status(study).results if each.source == f"{study}.{number}"}


def report(home: Home, study: str, number: int) -> Dataset:
    """Return the one report on a picture, read back from its file."""
    with transaction(home.engine) as session:
        wanted = select(Result).where(
            Result.source_sop_instance_uid == f"{study}.{number}", Result.kind == "sr"
        )
        path = session.scalars(wanted).one().path
    return dcmread(home.settings.storage.directory / path)


def texts(sr: Dataset) -> str:
    return " ".join(str(each.TextValue) for each in sr.ContentSequence if "TextValue" in each)


def refusals(home: Home) -> dict[str, dict[str, str]]:
    """Return what the audit says of every refused picture."""
    with transaction(home.engine) as session:
        rows = session.scalars(select(AuditEntry).where(AuditEntry.event == "picture-refused"))
        return {str(each.sop_instance_uid): each.detail["refusal"] for each in rows}


def stored(home: Home, sop_instance_uid: str) -> Path:
    with transaction(home.engine) as session:
        wanted = select(Instance.path).where(Instance.sop_instance_uid == sop_instance_uid)
        return home.settings.storage.directory / session.scalars(wanted).one()


def make_due(home: Home) -> None:
    """Let every job's lease run out, and its wait be over."""
    past = now() - timedelta(seconds=1)
    with transaction(home.engine) as session:
        session.execute(update(Job).values(not_before=past))
        session.execute(update(Job).where(Job.state == JobState.RUNNING).values(lease_until=past))


def job_of(home: Home, job: int) -> Job:
    with transaction(home.engine) as session:
        return session.get_one(Job, job)


def now() -> datetime:
    return datetime.now(UTC)
