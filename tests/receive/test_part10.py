"""A DICOM file from elsewhere becomes the very file that a C-STORE of it would have left."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from drawn_objects import a_photograph, written
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid
from ward import LOOPBACK, Ward

from cds_plugin.config import Rule
from cds_plugin.receive.answers import Status
from cds_plugin.receive.associations import OpenAssociation
from cds_plugin.receive.part10 import META_BYTES, PREAMBLE, offered_from_file
from cds_plugin.receive.reception import Reception
from cds_plugin.receive.rulebook import RuleBook
from cds_plugin.receive.spool import Spool
from cds_plugin.receive.turn import turns

LONG_VALUE = b"\x02\x00\x02\x01OB\0\0" + (2 * META_BYTES).to_bytes(4, "little") + b"\0" * 2 * META_BYTES
CUT_VALUE = b"\x02\x00\x10\x00UI\x40\x00"


def received(ward: Ward, make: Callable[[Path], object], study: str = "") -> tuple[Status, str]:
    """Give a file to the reception as STOW does; `make` writes it at the path that it gets."""
    spool = Spool(ward.directory)
    spool.make_folders()
    now = datetime.now(UTC)
    sender = OpenAssociation(id="a1", calling_ae="CAMERA", peer=LOOPBACK, opened_at=now, active_at=now)
    with spool.incoming_folder() as folder:
        path = folder / "arrived.dcm"
        make(path)
        reception = Reception(
            RuleBook(lambda: ward.settings), ward.engine, spool, "here:1", ward.bounds, turns(ward.engine)
        )
        answer = reception.receive(offered_from_file(path, sender, study))
        assert not list(folder.iterdir())
    return answer


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, JPEGBaseline8Bit, DeflatedExplicitVRLittleEndian])
def test_by_two_ways_it_is_one_object(ward: Ward, syntax: str) -> None:
    picture = a_photograph(transfer_syntax=syntax)
    picture.file_meta.SourceApplicationEntityTitle = "ELSEWHERE"
    picture.preamble = b"TIFF" * 32
    with ward.listening():
        assert ward.sent(picture) == [Status.SUCCESS]
    assert received(ward, lambda path: written(picture, path)) == (Status.SUCCESS, "")
    (instance,) = ward.instances()
    assert instance.transfer_syntax_uid == syntax
    assert ward.events() == ["instance-stored", "study-opened", "instance-duplicate"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_repaired_object_is_one_by_two_ways_as_well(ward: Ward, tmp_path: Path) -> None:
    rule = Rule(calling_ae="CAMERA", repairs=("quoted-values",))
    ward.settings = ward.settings.model_copy(update={"rules": (rule,)})
    picture = a_photograph()
    picture.SOPClassUID = picture.file_meta.MediaStorageSOPClassUID = f'"{picture.SOPClassUID}"'
    picture.PatientID = '"P1"'
    with ward.listening():
        assert ward.sent_files(written(picture, tmp_path / "quoted.dcm")) == [Status.SUCCESS]
    assert received(ward, lambda path: written(picture, path)) == (Status.SUCCESS, "")
    assert len(ward.instances()) == 1 == len(ward.spooled())
    assert ward.events().count("instance-repaired") == 2 and "instance-duplicate" in ward.events()


@pytest.mark.parametrize(
    "content", [b"", b"hello", PREAMBLE, PREAMBLE + LONG_VALUE, PREAMBLE + CUT_VALUE], ids=len
)
def test_what_is_no_dicom_file_goes_to_quarantine(ward: Ward, content: bytes) -> None:
    status, reason = received(ward, lambda path: path.write_bytes(content))
    assert (status, reason) == (Status.CANNOT_UNDERSTAND, "no readable File Meta Information")
    ((kept, note),) = ward.quarantined()
    assert kept == content and note["calling_ae"] == "CAMERA"
    assert ward.events() == ["instance-quarantined"] and not ward.instances()


def test_meta_information_that_lies_about_the_object(ward: Ward) -> None:
    picture = a_photograph()
    picture.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    picture.preamble = b"\0" * 128
    status, reason = received(ward, lambda path: picture.save_as(path, enforce_file_format=False))
    assert (status, reason) == (
        Status.DATA_SET_DOES_NOT_MATCH,
        "SOP Instance UID differs from the command's",
    )


def test_the_study_that_the_request_names_must_be_the_objects(ward: Ward) -> None:
    study = generate_uid()
    picture = a_photograph(study)
    assert received(ward, lambda path: written(picture, path), study) == (Status.SUCCESS, "")
    status, reason = received(ward, lambda path: written(picture, path), generate_uid())
    assert (status, reason) == (
        Status.DATA_SET_DOES_NOT_MATCH,
        "Study Instance UID differs from the request's",
    )
