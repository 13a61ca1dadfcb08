"""The listener with real peers: what it stores, what it answers, and that nothing stops it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from drawn_objects import DERMOSCOPIC, SECONDARY_CAPTURE, SEGMENTATION, a_photograph, written
from pydicom.uid import (
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    generate_uid,
)
from pynetdicom import AllStoragePresentationContexts
from pynetdicom.dsutils import split_dataset
from ward import AE_TITLE, LOOPBACK, Ward

from cds_db import studies
from cds_db.models import Association
from cds_db.session import transaction
from cds_plugin.errors import Unavailable
from cds_plugin.presence import this_process

Dcmtk = Callable[..., subprocess.CompletedProcess[str]]


def body(path: Path) -> bytes:
    """Return the bytes of the data set in a DICOM file."""
    return path.read_bytes()[split_dataset(path)[1] :]


def test_echo_and_the_called_title(ward: Ward, dcmtk: Dcmtk) -> None:
    with ward.listening():
        assert dcmtk("echoscu", "-aec", AE_TITLE, LOOPBACK, ward.port).returncode == 0
        assert dcmtk("echoscu", "-aec", "OTHER", LOOPBACK, ward.port).returncode != 0


def test_what_a_predecessor_of_its_process_id_held_open_is_let_go(ward: Ward) -> None:
    facts = {"listener": this_process(), "calling_ae": "A", "peer": LOOPBACK, "now": datetime.now(UTC)}
    with transaction(ward.engine) as session:
        studies.open_association(session, id="of a container that was started again", **facts)
    with ward.listening(), transaction(ward.engine) as session:
        assert session.query(Association).all() == []


def test_a_stored_object_is_durable_and_audited(ward: Ward, tmp_path: Path) -> None:
    picture = a_photograph()
    with ward.listening():
        assert ward.sent(picture) == [0x0000]
    (instance,) = ward.instances()
    (path,) = ward.spooled()
    assert instance.path == str(path.relative_to(ward.directory))
    assert instance.sha256 == path.stem and instance.in_use
    assert (instance.sop_instance_uid, instance.calling_ae) == (picture.SOPInstanceUID, "CAMERA")
    assert instance.peer == LOOPBACK and instance.reason_not_analysed is None
    assert body(path) == body(written(picture, tmp_path / "sent.dcm"))
    assert ward.events() == ["instance-stored", "study-opened"]
    assert not ward.incoming()


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        JPEGBaseline8Bit,
    ],
)
def test_dcmtk_sends_every_encoding(ward: Ward, dcmtk: Dcmtk, tmp_path: Path, syntax: str) -> None:
    option = {DeflatedExplicitVRLittleEndian: "-xd", ExplicitVRBigEndian: "-xb", JPEGBaseline8Bit: "-xy"}
    picture = written(a_photograph(transfer_syntax=syntax), tmp_path / "a.dcm")
    arguments = ["-R", option.get(syntax, "-xe" if syntax == ExplicitVRLittleEndian else "-xi")]
    with ward.listening():
        done = dcmtk("storescu", *arguments, "-aec", AE_TITLE, LOOPBACK, ward.port, picture)
    assert done.returncode == 0, done.stderr
    (instance,) = ward.instances()
    assert instance.transfer_syntax_uid == syntax


def test_every_class_and_every_syntax_is_accepted(ward: Ward) -> None:
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    pairs = [(sop_class, ExplicitVRLittleEndian) for sop_class in [*classes, "1.2.3.4.5", SEGMENTATION]]
    pairs += [(DERMOSCOPIC, str(syntax)) for syntax in AllTransferSyntaxes]
    with ward.listening():
        for start in range(0, len(pairs), 128):
            association = ward.connected(*pairs[start : start + 128])
            assert len(association.accepted_contexts) == len(pairs[start : start + 128])
            association.release()


def test_a_duplicate_changes_nothing(ward: Ward) -> None:
    picture = a_photograph()
    with ward.listening():
        assert ward.sent(picture, picture) == [0x0000, 0x0000]
        assert ward.sent(picture) == [0x0000]
    assert len(ward.instances()) == len(ward.spooled()) == len(ward.revisions()) == 1
    assert ward.events().count("instance-duplicate") == 2


def test_a_lost_file_is_healed_by_sending_it_again(ward: Ward) -> None:
    picture = a_photograph()
    with ward.listening():
        ward.sent(picture)
        (path,) = ward.spooled()
        path.unlink()
        ward.sent(picture)
    assert ward.spooled() == [path]


def test_other_bytes_of_the_same_uid_are_both_kept(ward: Ward) -> None:
    first, second = a_photograph(), a_photograph(seed=1)
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = first.SOPInstanceUID
    second.StudyInstanceUID = first.StudyInstanceUID
    with ward.listening():
        assert ward.sent(first, second) == [0x0000, 0x0000]
    assert [instance.in_use for instance in ward.instances()] == [True, False]
    assert len(ward.spooled()) == 2
    assert "instance-altered" in ward.events() and len(ward.revisions()) == 1


def test_the_same_object_from_many_at_once_is_one(ward: Ward) -> None:
    picture = a_photograph(side=64)
    with ward.listening(), ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda _: ward.sent(picture), range(8)))
    assert statuses == [[0x0000]] * 8
    (path,) = ward.spooled()
    (instance,) = ward.instances()
    assert path.stem == instance.sha256
    assert sorted(ward.events())[:8] == ["instance-duplicate"] * 7 + ["instance-stored"]


def test_what_is_not_analysed_is_stored_and_opens_nothing(ward: Ward) -> None:
    pictures = [a_photograph(sop_class=sop_class) for sop_class in (SECONDARY_CAPTURE, SEGMENTATION, "1.2.3")]
    with ward.listening():
        assert ward.sent(*pictures) == [0x0000] * 3
        assert not ward.revisions()
        assert ward.sent(a_photograph(sop_class=SECONDARY_CAPTURE), calling="IMPORTER") == [0x0000]
    reasons = [instance.reason_not_analysed for instance in ward.instances()]
    assert all(reasons[:3]) and reasons[3] is None
    assert len(ward.revisions()) == 1


def test_two_patients_in_one_study_are_a_conflict(ward: Ward) -> None:
    first = a_photograph(patient_id="P1")
    second = a_photograph(first.StudyInstanceUID, patient_id="P2")
    with ward.listening():
        assert ward.sent(first, second) == [0x0000, 0x0000]
    (conflict,) = ward.audit("study-conflict")
    assert conflict.detail["patient_id"] == ["P1", "P2"]
    assert {revision.stage for revision in ward.revisions()} == {"conflict"}


@pytest.mark.slow
def test_more_than_ten_associations_at_once(ward: Ward) -> None:
    with ward.listening():
        associations = [ward.connected((DERMOSCOPIC, ExplicitVRLittleEndian)) for _ in range(15)]
        assert all(each.send_c_store(a_photograph()).Status == 0 for each in associations)
        for each in associations:
            each.release()


def test_too_many_associations_are_turned_away_and_come_back(ward: Ward, dcmtk: Dcmtk) -> None:
    ward.bounds = replace(ward.bounds, associations=2)
    with ward.listening():
        held = [ward.connected((DERMOSCOPIC, ExplicitVRLittleEndian)) for _ in range(2)]
        assert dcmtk("echoscu", "-aec", AE_TITLE, LOOPBACK, ward.port).returncode != 0
        held.pop().release()
        time.sleep(0.2)
        assert dcmtk("echoscu", "-aec", AE_TITLE, LOOPBACK, ward.port).returncode == 0
        held.pop().release()


def test_a_full_disk_keeps_nothing_and_the_association_goes_on(ward: Ward) -> None:
    ward.bounds = replace(ward.bounds, free_bytes=2**62)
    with ward.listening():
        assert ward.sent(a_photograph(), a_photograph()) == [0xA700, 0xA700]
    assert not ward.instances() and not ward.spooled() and not ward.incoming() and not ward.quarantined()
    assert ward.events() == ["instance-rejected"] * 2


def test_too_large_an_object_keeps_nothing_and_the_next_is_taken(ward: Ward) -> None:
    ward.bounds = replace(ward.bounds, object_bytes=300_000)
    with ward.listening():
        assert ward.sent(a_photograph(side=800), a_photograph(side=64)) == [0xA700, 0x0000]
    assert len(ward.spooled()) == 1 and not ward.incoming()
    (rejected,) = ward.audit("instance-rejected")
    assert "larger" in rejected.detail["reason"]


def test_a_database_that_is_away_answers_out_of_resources(ward: Ward) -> None:
    picture = a_photograph()
    database = Path(ward.engine.url.database or "")
    with ward.listening():
        ward.sent(a_photograph())
        ward.engine.dispose()
        aside = database.rename(database.with_suffix(".aside"))
        assert ward.sent(picture) == [0xA700]
        ward.engine.dispose()
        database.unlink()
        aside.rename(database)
        assert ward.sent(picture) == [0x0000]
    assert len(ward.instances()) == 2


def test_an_aborted_transfer_leaves_nothing(ward: Ward) -> None:
    with ward.listening():
        association = ward.connected((DERMOSCOPIC, ExplicitVRLittleEndian))
        sender = threading.Thread(target=lambda: association.send_c_store(a_photograph(side=3000)))
        sender.start()
        while not ward.incoming():
            time.sleep(0.001)
        association.dul.socket.socket.close()
        deadline = time.monotonic() + 5
        while ward.incoming() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not ward.incoming(), "swept after the abort"
        assert ward.sent(a_photograph()) == [0x0000]
        sender.join()
    assert len(ward.instances()) == 1


def test_a_port_that_is_taken_is_named_and_leaves_nothing(ward: Ward) -> None:
    with ward.listening(), pytest.raises(Unavailable, match=str(ward.port)), ward.listening():
        pass
    assert not list((ward.directory / "incoming").iterdir())


def test_late_images_of_a_study_join_its_open_revision(ward: Ward) -> None:
    study = generate_uid()
    with ward.listening():
        ward.sent(a_photograph(study), a_photograph(study))
        ward.sent(a_photograph(study))
    (revision,) = ward.revisions()
    assert {instance.revision_id for instance in ward.instances()} == {revision.id}
