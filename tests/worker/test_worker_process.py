"""The worker as a process: what it does with a study, and what is left when it is killed in the middle."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from pydicom import dcmread
from worker_home import Home, is_running, wait_until

from cds_bundles.digest import BUNDLE_NAMES
from cds_db import audit
from cds_db.audit import AuditFilter
from cds_db.handling import HIGH, Handling
from cds_db.models import Job, Result
from cds_db.session import transaction
from cds_db.stages import JobKind, JobState
from cds_db.studies import StudyStatus

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("worker-process")]

STUDY_SECONDS = 60.0
MANY = 5
"""Pictures of a study that takes long enough to be killed in the middle."""

Studies = Callable[[int], tuple[str, list[Path]]]


def test_a_closed_study_is_analysed_and_its_objects_kept(running_home: Home, a_study: Studies) -> None:
    study, files = a_study(2)
    running_home.close(running_home.receive(files))
    status = running_home.wait_for(study, "complete", STUDY_SECONDS)
    assert_each_picture_has_one_report(status, 2)
    storage = running_home.settings.storage.directory
    for result in results_of(running_home, study):
        content = (storage / result.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == result.sha256
        assert len(content) == result.size_bytes
        assert dcmread(storage / result.path).SOPInstanceUID == result.sop_instance_uid


def test_the_audit_says_which_models_answered_what(running_home: Home, a_study: Studies) -> None:
    study, files = a_study(1)
    running_home.close(running_home.receive(files))
    running_home.wait_for(study, "complete", STUDY_SECONDS)
    rows = {str(each.event): each.detail for each in audit_of(running_home, study)}
    analysed = rows["picture-analysed"]
    assert set(analysed["bundles"]) == set(BUNDLE_NAMES)
    assert analysed["quality"]["verdict"] in ("diagnostic", "limited")
    assert {"quality", "segmentation", "classification", "results"} <= set(analysed["seconds"])
    assert rows["result-created"]["sha256"]


def test_a_picture_that_can_not_be_decoded_gets_a_report_and_the_others_go_on(
    running_home: Home, a_study: Studies
) -> None:
    study, files = a_study(2)
    cut = dcmread(files[0])
    cut.PixelData = cut.PixelData[: len(cut.PixelData) // 2]
    cut.save_as(files[0])
    running_home.close(running_home.receive(files))
    status = running_home.wait_for(study, "complete", STUDY_SECONDS)
    assert_each_picture_has_one_report(status, 2)
    kinds = Counter(each.source for each in status.results)
    assert kinds[f"{study}.1"] == 1
    assert kinds[f"{study}.2"] >= 2
    (refused,) = [each for each in audit_of(running_home, study) if each.event == "picture-refused"]
    assert refused.sop_instance_uid == f"{study}.1"
    assert refused.detail["refusal"]["code"]


def test_after_kill_9_of_the_child_the_study_is_finished_once(running_home: Home, a_study: Studies) -> None:
    study = start_long_study(running_home, a_study)
    (child,) = running_home.workers(datetime.now(UTC) - timedelta(seconds=5))
    decoders = psutil.Process(child).children()
    os.kill(child, signal.SIGKILL)
    status = running_home.wait_for(study, "complete", running_home.recovery_seconds)
    assert_each_picture_has_one_report(status, MANY)
    assert_nothing_twice(running_home, study)
    assert not any(is_running(each.pid) for each in decoders)


def test_after_kill_9_of_the_parent_nothing_lives_on_and_a_new_worker_finishes(
    running_home: Home, a_study: Studies
) -> None:
    study = start_long_study(running_home, a_study)
    parent = running_home.running["worker"]
    family = psutil.Process(parent.pid).children(recursive=True)
    assert family
    parent.kill()
    parent.wait()
    killed = time.monotonic()
    running_home.start("worker")
    wait_until(lambda: not any(is_running(each.pid) for each in family), 5, running_home.log)
    status = running_home.wait_for(
        study, "complete", running_home.recovery_seconds - (time.monotonic() - killed)
    )
    assert_each_picture_has_one_report(status, MANY)
    assert_nothing_twice(running_home, study)


def test_sigterm_hands_the_study_back_and_the_next_worker_goes_on(
    running_home: Home, a_study: Studies
) -> None:
    study = start_long_study(running_home, a_study)
    parent = running_home.running["worker"]
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(20) == 0
    done = len(running_home.status(study).results)
    assert 0 < done < 2 * MANY
    assert running_home.status(study).stage == "analysing"
    with transaction(running_home.engine) as session:
        (job,) = session.query(Job).filter_by(state=JobState.WAITING, kind=JobKind.ANALYSIS)
        assert (job.attempts, job.lost, job.lease_owner) == (0, 0, None), "it counts as not tried"
    running_home.start_worker()
    status = running_home.wait_for(study, "complete", STUDY_SECONDS)
    assert_each_picture_has_one_report(status, MANY)
    assert_nothing_twice(running_home, study)


def test_urgent_studies_overtake_and_senders_take_turns(running_home: Home, a_study: Studies) -> None:
    """What waits while a long study is in hand: three of one sender, one of another, then an urgent one."""
    start_long_study(running_home, a_study)
    urgent = Handling(quiet_seconds=1.0, priority=HIGH)
    waiting = [("A", None), ("A", None), ("A", None), ("B", None), ("A", urgent)]
    names = {}
    for number, (sender, handling) in enumerate(waiting):
        study, files = a_study(1)
        names[study] = f"{sender}{number}"
        running_home.close(running_home.receive(files, calling_ae=sender, handling=handling))
    began = running_home.started
    wait_until(lambda: set(names) <= set(began()), STUDY_SECONDS, running_home.log)
    assert [names[study] for study in began() if study in names] == ["A4", "B3", "A0", "A1", "A2"]


def test_a_conflict_in_the_middle_stops_the_analysis(running_home: Home, a_study: Studies) -> None:
    study = start_long_study(running_home, a_study)
    _, others = a_study(1)
    stranger = dcmread(others[0])
    stranger.StudyInstanceUID = study
    stranger.save_as(others[0])
    running_home.receive(others, patient_id="SOMEBODY-ELSE")
    before = running_home.wait_for(study, "conflict", 5).results
    time.sleep(2)
    after = running_home.status(study)
    assert after.stage == "conflict"
    assert after.results == before
    assert not after.deliveries


def start_long_study(home: Home, a_study: Studies) -> str:
    """Return a study whose analysis has begun and has results already."""
    study, files = a_study(MANY)
    home.close(home.receive(files))
    wait_until(lambda: len(home.status(study).results) > 0, STUDY_SECONDS, home.log)
    assert home.status(study).stage == "analysing"
    return study


def assert_each_picture_has_one_report(status: StudyStatus, pictures: int) -> None:
    reports = Counter(each.source for each in status.results if each.kind == "sr")
    assert len(reports) == pictures
    assert set(reports.values()) == {1}


def assert_nothing_twice(home: Home, study: str) -> None:
    events = Counter((str(each.event), each.sop_instance_uid) for each in audit_of(home, study))
    for event in ("picture-analysed", "result-created", "analysis-finished"):
        assert {count for (name, _), count in events.items() if name == event} == {1}


def results_of(home: Home, study: str) -> list[Result]:
    with transaction(home.engine) as session:
        found = [session.get_one(Result, each.sop_instance_uid) for each in home.status(study).results]
    assert found
    return found


def audit_of(home: Home, study: str) -> list[audit.AuditEntry]:
    with transaction(home.engine) as session:
        return list(audit.query(session, AuditFilter(study=study)))
