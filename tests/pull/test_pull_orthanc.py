"""Studies out of a real Orthanc by every way: whole, byte for byte, once, and on after a break."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from clinic import NAME, Clinic, documents
from drawn_objects import SECONDARY_CAPTURE, a_photograph
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom.dsutils import split_dataset
from sqlalchemy import select
from ward import Ward

from cds_db.models import Association, PulledInstance, PulledStudy
from cds_db.session import snapshot
from cds_db.stages import PulledState, PullState
from cds_plugin.receive.spool import sha256_of

pytestmark = pytest.mark.slow

WAYS = ["c-get", "c-move", "wado-rs"]
WAIT_SECONDS = 60
MANY = 240
"""Objects of a study that is still being fetched when something stops."""


def body(path: Path) -> bytes:
    """Return the bytes of the data set in a DICOM file."""
    return path.read_bytes()[split_dataset(path)[1] :]


@pytest.mark.parametrize("way", WAYS)
def test_a_study_comes_whole_as_it_is_stored_and_once(clinic: Clinic, way: str, tmp_path: Path) -> None:
    study = clinic.a_study(3)
    clinic.put(*(a_photograph(study, seed=9, transfer_syntax=each) for each in (ExplicitVRLittleEndian,)))
    clinic.put(a_photograph(study, sop_class=SECONDARY_CAPTURE, transfer_syntax=JPEGBaseline8Bit))
    ward = clinic.ward
    with ExitStack() as running:
        if way == "c-move":
            running.enter_context(ward.listening())
        (first,) = documents(clinic.pull("--study", study, retrieve=way))
        late = a_photograph(study, seed=10)
        clinic.put(late)
        (second,) = documents(clinic.pull("--study", study, retrieve=way))
        (third,) = documents(clinic.pull("--study", study, retrieve=way))
    assert (first["state"], first["instances"], first["fetched"]) == ("complete", 5, 5)
    assert (second["instances"], second["held_before"], second["fetched"]) == (6, 5, 1)
    assert (third["held_before"], third["fetched"]) == (6, 0)
    kept = {each.sop_instance_uid: each for each in ward.instances()}
    assert len(kept) == 6 == len(ward.spooled()) and not ward.incoming()
    assert {each.calling_ae for each in kept.values()} == {"ORTHANC"}
    assert {each.transfer_syntax_uid for each in kept.values()} == {ExplicitVRLittleEndian, JPEGBaseline8Bit}
    for uid, instance in kept.items():
        path = ward.directory / instance.path
        assert sha256_of(path) == instance.sha256 and body(path) == body(tmp_path / f"{uid}.dcm")
    assert kept[late.SOPInstanceUID].revision_id is not None, "it is analysed, as if it had been sent"
    with snapshot(ward.engine) as session:
        if way != "c-move":
            assert not session.scalars(select(Association)).all(), "nothing holds the study open"
        assert session.scalars(select(PulledStudy)).one().state is PullState.COMPLETE
        assert {each.state for each in session.scalars(select(PulledInstance))} == {PulledState.HELD}


def test_by_every_way_it_is_the_same_object(clinic: Clinic) -> None:
    study = clinic.a_study(2)
    clinic.pull("--study", study, retrieve="c-get")
    before = {each.sop_instance_uid: each.sha256 for each in clinic.ward.instances()}
    for path in clinic.ward.spooled():
        path.unlink()
    (healed,) = documents(clinic.pull("--study", study, retrieve="wado-rs"))
    assert (healed["held_before"], healed["fetched"]) == (0, 2), "files that were lost are fetched anew"
    assert {path.stem for path in clinic.ward.spooled()} == set(before.values())
    assert len(clinic.ward.instances()) == 2 and "instance-altered" not in clinic.ward.events()


@pytest.mark.parametrize("way", ["c-get", "wado-rs"])
def test_a_range_of_days_and_modalities(clinic: Clinic, way: str) -> None:
    first = clinic.a_study(1, day="20240228")
    second = clinic.a_study(2, day="20240301")
    clinic.a_study(1, day="20240302")
    clinic.a_study(1, day="20240301", modality="CT")
    words = ("--since", "2024-02-28", "--until", "2024-03-01", "--modality", "DMS")
    pulled = documents(clinic.pull(*words, retrieve=way))
    assert [(each["study_instance_uid"], each["fetched"]) for each in pulled] == [(first, 1), (second, 2)]
    queries = clinic.ward.audit("peer-queried")
    assert [(each.detail["day"], each.detail["studies"]) for each in queries] == [
        ("2024-02-28", 1),
        ("2024-02-29", 0),
        ("2024-03-01", 1),
    ]
    clinic.put(a_photograph(second, seed=3))
    again = documents(clinic.pull(*words, "--modality", "XC", retrieve=way))
    assert [each["skipped"] for each in again] == [False, False], "other modalities are another question"
    again = documents(clinic.pull(*words, "--modality", "XC", retrieve=way))
    assert [each["skipped"] for each in again] == [True, True]
    assert len(clinic.ward.instances()) == 4


def _heeds_ctrl_c() -> None:
    """Undo what a shell does to what it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("way", "how"), [("c-get", signal.SIGKILL), ("wado-rs", signal.SIGKILL), ("c-get", signal.SIGINT)]
)
def test_stopped_in_the_middle_and_on(clinic: Clinic, way: str, how: signal.Signals) -> None:
    study = clinic.a_study(MANY, side=200, syntax=ExplicitVRLittleEndian)
    config = clinic.settings_file(way)
    command = [sys.executable, "-m", "cds_plugin", "pull", "--config", str(config), "--from", NAME]
    with subprocess.Popen(
        [*command, "--study", study], stderr=subprocess.DEVNULL, preexec_fn=_heeds_ctrl_c
    ) as process:
        until(lambda: len(clinic.ward.instances()) >= 5 or process.poll() is not None)
        process.send_signal(how)
        assert process.wait(20) != 0
    held = len(clinic.ward.instances())
    assert 5 <= held < MANY
    (done,) = documents(clinic.pull("--study", study, retrieve=way))
    assert (done["state"], done["held_before"], done["fetched"]) == ("complete", held, MANY - held)
    assert len(clinic.ward.spooled()) == MANY and not clinic.ward.incoming()
    assert clinic.ward.events().count("instance-stored") == MANY


def test_a_peer_that_dies_in_the_middle_is_named_and_asked_again_later(clinic: Clinic) -> None:
    study = clinic.a_study(MANY, side=200, syntax=ExplicitVRLittleEndian)
    config = clinic.settings_file("c-get")
    command = [sys.executable, "-m", "cds_plugin", "pull", "--config", str(config), "--from", NAME]
    with subprocess.Popen([*command, "--study", study], stderr=subprocess.PIPE, text=True) as process:
        until(lambda: len(clinic.ward.instances()) >= 5)
        clinic.orthanc.process.kill()
        _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 1 and study in said and "ORTHANC@" in said
    held = len(clinic.ward.instances())
    with clinic.orthanc:
        (done,) = documents(clinic.pull("--study", study))
    assert (done["state"], done["fetched"]) == ("complete", MANY - held)


def test_a_move_to_a_listener_that_is_not_there_or_unknown(clinic: Clinic) -> None:
    study = clinic.a_study(2)
    done = clinic.pull("--study", study, retrieve="c-move")
    (line,) = documents(done)
    assert done.exit_code == 1 and line["state"] == "incomplete" and len(line["failures"]) == 2
    config = clinic.settings_file("c-move")
    config.write_text(config.read_text().replace("[listener]", '[listener]\nae_title = "NOBODY"'))
    command = [sys.executable, "-m", "cds_plugin", "pull", "--config", str(config), "--from", NAME]
    run = subprocess.run([*command, "--study", study], capture_output=True, text=True, check=False)
    assert run.returncode == 1 and "NOBODY" in run.stderr


def test_our_own_results_are_not_fetched_back(clinic: Clinic) -> None:
    study = clinic.a_study(1)
    clinic.pull("--study", study)
    own = a_photograph(study, seed=5)
    clinic.put(own)
    note_result(clinic.ward, own.SOPInstanceUID)
    (done,) = documents(clinic.pull("--study", study))
    assert (done["instances"], done["held_before"], done["fetched"]) == (2, 2, 0)


def note_result(ward: Ward, uid: str) -> None:
    """Write the row and the file of a result, as a worker does."""
    (ward.directory / "results").mkdir()
    (ward.directory / "results" / "own.dcm").touch()
    columns = "sop_instance_uid, sop_class_uid, kind, revision_id, source_sop_instance_uid, path, sha256"
    with ward.engine.begin() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO results ({columns}, size_bytes, created_at) VALUES "
            f"('{uid}', '1.2', 'seg', 1, '1.2.3', 'results/own.dcm', '', 0, '2024-01-01T00:00:00.000000Z')"
        )


def until(condition: object) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
