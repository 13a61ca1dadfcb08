"""`cds-plugin rerun` and `release`: new revisions that name their predecessors; nothing is overwritten."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from typer.testing import CliRunner
from worker_home import Home

from cds_db.models import Job, Result
from cds_db.session import transaction
from cds_db.stages import JobState
from cds_plugin.cli import build
from cds_plugin.config import BundleFolder
from cds_plugin.study import BundleIdentity, Sha256
from cds_worker.bundle import check_bundles
from cds_worker.inference import Analyst

pytestmark = pytest.mark.slow

Studies = Callable[[int], tuple[str, list[Path]]]
REPLACED, ADDENDED = "121360", "121361"


@pytest.fixture
def shipped(analyst: Analyst) -> Analyst:
    """A worker that says it runs the shipped bundles, as `rerun` finds them on disk."""
    return replace(
        analyst, pipeline=replace(analyst.pipeline, bundles=check_bundles(BundleFolder()).identities)
    )


def run(home: Home, command: str, *arguments: str) -> tuple[int, list[dict[str, object]]]:
    done = CliRunner().invoke(build(command), [command, *arguments, "--config", str(home.config), "--json"])
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()]


def reports(home: Home, study: str) -> dict[str, Dataset]:
    """Return the report that stands for each picture."""
    storage = home.settings.storage.directory
    with transaction(home.engine) as session:
        paths = {each.sop_instance_uid: each.path for each in session.query(Result)}
    lines = [each for each in home.status(study).results if each.kind == "sr"]
    return {each.source: dcmread(storage / paths[each.sop_instance_uid]) for each in lines}


def predecessors(report: Dataset) -> list[tuple[str, str, str]]:
    """Return (series, instance, purpose) of each predecessor that a report names."""
    return [
        (
            series.SeriesInstanceUID,
            each.ReferencedSOPInstanceUID,
            each.PurposeOfReferenceCodeSequence[0].CodeValue,
        )
        for study in report.get("PredecessorDocumentsSequence", ())
        for series in study.ReferencedSeriesSequence
        for each in series.ReferencedSOPSequence
    ]


def waiting(home: Home) -> list[Job]:
    with transaction(home.engine) as session:
        return session.query(Job).filter_by(state=JobState.WAITING).all()


def work(home: Home, analyst: Analyst) -> None:
    for job in waiting(home):
        analyst.work(job.id)


def test_other_models_make_new_reports_that_name_the_old_ones(
    home: Home,
    analyst: Analyst,
    shipped: Analyst,
    a_study: Studies,
    dciodvfy: Callable[[Path], list[str]],
    tmp_path: Path,
) -> None:
    study, files = a_study(2)
    analyst.work(home.close(home.receive(files)))
    before = reports(home, study)
    kept = {path: path.read_bytes() for path in (home.settings.storage.directory / "results").rglob("*.dcm")}
    assert run(home, "rerun", study) == (
        0,
        [{"study_instance_uid": study, "outcome": "queued", "revision": 2, "pictures": 2, "purged": 0}],
    )
    work(home, shipped)
    status = home.status(study)
    assert (status.stage, status.revision, status.origin) == ("complete", 2, "rerun")
    after = reports(home, study)
    for source, report in after.items():
        old = before[source]
        assert predecessors(report) == [(old.SeriesInstanceUID, old.SOPInstanceUID, REPLACED)]
        report.save_as(tmp_path / "sr.dcm", enforce_file_format=True)
        assert dciodvfy(tmp_path / "sr.dcm") == []
        assert report.SOPInstanceUID != old.SOPInstanceUID
        assert report.DeviceUID != old.DeviceUID
    assert all(path.read_bytes() == content for path, content in kept.items()), "nothing is overwritten"
    assert run(home, "rerun", study)[1] == [
        {"study_instance_uid": study, "outcome": "unchanged", "revision": None, "pictures": 0, "purged": 0}
    ]
    assert not waiting(home) and home.status(study) == status


def test_a_late_picture_adds_to_the_reports_before(home: Home, analyst: Analyst, a_study: Studies) -> None:
    study, files = a_study(3)
    analyst.work(home.close(home.receive(files[:2])))
    first = reports(home, study)
    analyst.work(home.close(home.receive(files[2:])))
    after = reports(home, study)
    assert {source: after[source].SOPInstanceUID for source in first} == {
        source: each.SOPInstanceUID for source, each in first.items()
    }
    named = predecessors(after[f"{study}.3"])
    assert {uid for _, uid, _ in named} == {str(each.SOPInstanceUID) for each in first.values()}
    assert {purpose for _, _, purpose in named} == {ADDENDED}


def test_a_worker_with_other_models_leaves_the_re_run_waiting(
    home: Home, analyst: Analyst, shipped: Analyst, a_study: Studies
) -> None:
    study, files = a_study(1)
    analyst.work(home.close(home.receive(files)))
    run(home, "rerun", study)
    work(home, analyst)
    (job,) = waiting(home)
    assert "other models or settings" in (job.last_error or "") and job.attempts == 0
    assert home.status(study).stage == "queued"
    with transaction(home.engine) as session:
        session.get_one(Job, job.id).not_before = job.not_before.replace(year=2020)
    work(home, shipped)
    assert home.status(study).stage == "complete"


def test_a_range_of_days_and_unknown_studies(home: Home, analyst: Analyst, a_study: Studies) -> None:
    study, files = a_study(1)
    analyst.work(home.close(home.receive(files)))
    assert run(home, "rerun", "1.2.3")[0] == 1
    assert run(home, "rerun", "--since", "2020-01-01", "--until", "2020-01-02")[0] == 1
    code, lines = run(home, "rerun", "--since", "2020-01-01")
    assert (code, [each["study_instance_uid"] for each in lines]) == (0, [study])
    assert run(home, "rerun")[0] == run(home, "rerun", study, "--since", "2020-01-01")[0] == 2


def test_a_report_from_before_series_were_noted_is_named_all_the_same(
    home: Home, analyst: Analyst, shipped: Analyst, a_study: Studies
) -> None:
    study, files = a_study(1)
    analyst.work(home.close(home.receive(files)))
    (old,) = reports(home, study).values()
    with transaction(home.engine) as session:
        session.query(Result).update({"series_instance_uid": None, "recipe": None})
    run(home, "rerun", study)
    work(home, shipped)
    (new,) = reports(home, study).values()
    assert predecessors(new) == [(old.SeriesInstanceUID, old.SOPInstanceUID, REPLACED)]


def test_a_study_on_hold_is_released(home: Home, analyst: Analyst, a_study: Studies) -> None:
    study, files = a_study(2)
    other = dcmread(files[1])
    other.PatientID = "SOMEBODY-ELSE"
    other.save_as(files[1])
    home.receive(files[:1])
    home.receive(files[1:], patient_id="SOMEBODY-ELSE")
    assert home.status(study).stage == "conflict"
    code, (shown,) = run(home, "release", study)
    assert code == 0 and [each["pictures"] for each in shown["patients"]] == [1, 1]
    exchange_files(home)
    assert run(home, "release", study)[0] == 1, (
        "a file that is not the one received says nothing of a patient"
    )
    exchange_files(home)
    right = str(dcmread(files[0]).PatientID)
    assert run(home, "release", study, "--patient", right)[0] == 2, "a reason is needed"
    assert run(home, "release", study, "--patient", "NOBODY", "--reason", "x")[0] == 1
    code, (done,) = run(home, "release", study, "--patient", right, "--reason", "Dr. A decided")
    assert (code, done["pictures"], done["set_aside"]) == (0, 1, 1)
    work(home, analyst)
    status = home.status(study)
    assert (status.stage, status.instances) == ("complete", 1)
    assert {each.source for each in status.results} == {f"{study}.1"}
    assert run(home, "release", study)[0] == 1, "it is not on hold any more"


def exchange_files(home: Home) -> None:
    """Let two stored files change places, as who can write the disk may."""
    one, other = (home.settings.storage.directory / "spool").rglob("*.dcm")
    aside = one.rename(one.with_suffix(".aside"))
    other.rename(one)
    aside.rename(other)


def test_other_settings_are_another_recipe(analyst: Analyst) -> None:
    settings = analyst.settings
    changed = settings.model_copy(update={"worker": settings.worker.model_copy(update={"max_pixels": 1})})
    other = replace(analyst.pipeline.bundles.classification, sha256=Sha256("cd" * 32))
    assert isinstance(other, BundleIdentity)
    bundles = replace(analyst.pipeline.bundles, classification=other)
    others = (
        replace(analyst, settings=changed),
        replace(analyst, pipeline=replace(analyst.pipeline, bundles=bundles)),
    )
    assert len({analyst.recipe, *(each.recipe for each in others)}) == 3
