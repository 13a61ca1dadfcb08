"""A corpus of mutilated objects: each gets its answer, is kept or not as the contract says, stops nothing."""

from __future__ import annotations

import io
import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from drawn_objects import DERMOSCOPIC, a_photograph, written
from pydicom.dataset import FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import split_dataset
from ward import LOOPBACK, Ward

CANNOT_UNDERSTAND, DOES_NOT_MATCH, STORED = 0xC000, 0xA900, 0x0000


def with_body(path: Path, body: bytes) -> Path:
    """Replace the data set of a DICOM file; its File Meta Information, the command's UIDs, stays."""
    _, offset = split_dataset(path)
    path.write_bytes(path.read_bytes()[:offset] + body)
    return path


def body_of(path: Path) -> bytes:
    return path.read_bytes()[split_dataset(path)[1] :]


def test_bytes_that_are_no_data_set(ward: Ward, tmp_path: Path) -> None:
    whole = body_of(written(a_photograph(), tmp_path / "whole.dcm"))
    bodies = {
        "text": b"This is not DICOM at all, however long it goes on." * 20,
        "zeros": b"\0" * 1000,
        "noise": random.Random(1).randbytes(5000),
        "a JPEG": b"\xff\xd8\xff\xe0" + random.Random(2).randbytes(5000),
        "cut in the header": whole[:100],
        "cut in the pixels": whole[:-10],
        "a whole file": (tmp_path / "whole.dcm").read_bytes(),
        "endless sequence": b"\x08\x00\x18\x22SQ\0\0\xff\xff\xff\xff" * 1000,
        "a length beyond the end": b"\x09\x00\x10\x10OB\0\0\xff\xff\xff\x7f" + whole,
    }
    files = [
        with_body(written(a_photograph(), tmp_path / f"{n}.dcm"), body)
        for n, body in enumerate(bodies.values())
    ]
    with ward.listening():
        statuses = ward.sent_files(*files, written(a_photograph(), tmp_path / "good.dcm"))
    assert dict(zip(bodies, statuses, strict=False)) == dict.fromkeys(bodies, CANNOT_UNDERSTAND)
    assert statuses[-1] == STORED
    kept = {body[-40:] for body, _ in ward.quarantined()}
    assert kept == {body[-40:] for body in bodies.values()}
    assert ward.events().count("instance-quarantined") == len(bodies)
    assert len(ward.instances()) == 1 and not ward.incoming()


def test_a_deflated_data_set_that_is_none(ward: Ward, tmp_path: Path) -> None:
    picture = a_photograph(transfer_syntax=DeflatedExplicitVRLittleEndian)
    press = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    cut = press.compress(random.Random(3).randbytes(9000))
    with ward.listening():
        status = ward.sent_files(with_body(written(picture, tmp_path / "a.dcm"), cut))
    assert status == [CANNOT_UNDERSTAND]


def _without(keyword: str) -> Callable[[FileDataset], None]:
    return lambda picture: delattr(picture, keyword)


def _saying(keyword: str, value: str) -> Callable[[FileDataset], None]:
    return lambda picture: setattr(picture, keyword, value)


WRONG_IDENTITIES: dict[str, tuple[Callable[[FileDataset], None], str]] = {
    "no instance": (_without("SOPInstanceUID"), "SOP Instance UID is missing"),
    "empty instance": (_saying("SOPInstanceUID", ""), "SOP Instance UID is missing"),
    "other instance": (_saying("SOPInstanceUID", "1.2.3"), "SOP Instance UID differs from the command's"),
    "quoted instance": (_saying("SOPInstanceUID", '"1.2.3"'), "SOP Instance UID is quoted"),
    "invalid instance": (_saying("SOPInstanceUID", "1.2..3"), "SOP Instance UID is invalid"),
    "two instances": (_saying("SOPInstanceUID", "1.2\\1.3"), "SOP Instance UID is invalid"),
    "no class": (_without("SOPClassUID"), "SOP Class UID is missing"),
    "quoted class": (_saying("SOPClassUID", f'"{DERMOSCOPIC}"'), "SOP Class UID is quoted"),
    "other class": (_saying("SOPClassUID", "1.2.3"), "SOP Class UID differs from the command's"),
    "no study": (_without("StudyInstanceUID"), "Study Instance UID is missing"),
    "a path as study": (_saying("StudyInstanceUID", "../../etc/passwd"), "Study Instance UID is invalid"),
    "a long series": (_saying("SeriesInstanceUID", "1." + "2" * 80), "Series Instance UID is invalid"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_identities_that_cannot_be_trusted(ward: Ward, tmp_path: Path) -> None:
    files = []
    for number, (spoil, _) in enumerate(WRONG_IDENTITIES.values()):
        picture = a_photograph(seed=number)
        announced = written(picture, tmp_path / f"{number}.dcm")
        spoil(picture)
        picture.save_as(tmp_path / "spoiled.dcm", enforce_file_format=False)
        files.append(with_body(announced, body_of(tmp_path / "spoiled.dcm")))
    with ward.listening():
        statuses = ward.sent_files(*files)
    assert statuses == [DOES_NOT_MATCH] * len(files)
    notes = [note for _, note in ward.quarantined()]
    assert sorted(note["reason"] for note in notes) == sorted(
        reason for _, reason in WRONG_IDENTITIES.values()
    )
    assert all("P1" not in str(note) and "Patient" not in str(note) for note in notes)
    assert not ward.instances() and not ward.revisions()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_command_whose_uid_is_quoted_too(ward: Ward, tmp_path: Path) -> None:
    picture = a_photograph()
    picture.SOPInstanceUID = picture.file_meta.MediaStorageSOPInstanceUID = '"1.2.3.4"'
    long = a_photograph()
    long.SOPInstanceUID = long.file_meta.MediaStorageSOPInstanceUID = "1." + "9" * 80
    files = [written(each, tmp_path / f"{number}.dcm") for number, each in enumerate((picture, long))]
    with ward.listening():
        assert ward.sent_files(*files) == [DOES_NOT_MATCH, DOES_NOT_MATCH]
    assert [entry.sop_instance_uid for entry in ward.audit("instance-quarantined")] == [None, None]


def test_the_quoted_files_of_isic_are_refused_and_kept(ward: Ward, derm_test_data: Path) -> None:
    files = sorted((derm_test_data / "isic2020_dicom").glob("*.dcm"))
    assert len(files) == 11
    with ward.listening():
        statuses = ward.sent_files(*files)
    assert statuses == [DOES_NOT_MATCH] * 11
    assert {note["reason"] for _, note in ward.quarantined()} == {"SOP Class UID is quoted"}
    assert len(ward.quarantined()) == 11 and not ward.instances()


@pytest.mark.parametrize(
    "noise",
    {
        "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "a huge PDU": struct.pack(">BBL", 4, 0, 0xFFFFFFFF) + b"x" * 1000,
        "a huge associate": struct.pack(">BBL", 1, 0, 50_000_000) + b"x" * 1000,
        "an associate of noise": struct.pack(">BBL", 1, 0, 300) + random.Random(4).randbytes(300),
        "nothing": b"",
        "half a PDU": struct.pack(">BBL", 1, 0, 300) + b"x" * 10,
    }.values(),
)
def test_noise_on_the_port_stops_nothing(ward: Ward, noise: bytes) -> None:
    with ward.listening():
        for _ in range(5):
            with socket.create_connection((LOOPBACK, ward.port)) as connection:
                connection.sendall(noise)
                connection.settimeout(0.05)
                try:
                    connection.recv(100)
                except OSError:
                    continue
        assert ward.sent(a_photograph()) == [STORED]


def test_a_command_without_a_uid_ends_only_its_association(ward: Ward) -> None:
    with ward.listening():
        association = ward.connected((DERMOSCOPIC, ExplicitVRLittleEndian))
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID = DERMOSCOPIC
        request.DataSet = io.BytesIO(b"\0" * 1000)
        association.dimse.send_msg(request, association.accepted_contexts[0].context_id or 1)
        association.join(10)
        assert not association.is_established
        assert ward.sent(a_photograph()) == [STORED]
        deadline = time.monotonic() + 5
        while ward.incoming() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not ward.incoming()


def test_random_spoiling_of_a_stream_of_objects(ward: Ward, tmp_path: Path) -> None:
    dice = random.Random(5)
    files = []
    for number in range(30):
        syntax = dice.choice([ExplicitVRLittleEndian, JPEGBaseline8Bit])
        path = written(a_photograph(transfer_syntax=syntax, seed=number), tmp_path / f"{number}.dcm")
        body = bytearray(body_of(path))
        for _ in range(dice.randrange(1, 12)):
            body[dice.randrange(len(body))] = dice.randrange(256)
        files.append(with_body(path, bytes(body)))
    with ward.listening():
        statuses = ward.sent_files(*files)
        assert ward.sent(a_photograph()) == [STORED]
    assert set(statuses) <= {STORED, DOES_NOT_MATCH, CANNOT_UNDERSTAND} and len(set(statuses)) > 1
    refused = sum(status != STORED for status in statuses)
    assert len(ward.quarantined()) == refused
    assert len(ward.instances()) == 31 - refused == len(ward.spooled())


@pytest.mark.slow
def test_threads_do_not_pile_up(ward: Ward) -> None:
    with ward.listening():
        ward.sent(a_photograph())
        before = threading.active_count()
        for _ in range(10):
            socket.create_connection((LOOPBACK, ward.port)).close()
            ward.sent(a_photograph(generate_uid()))
        deadline = time.monotonic() + 5
        while threading.active_count() > before + 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert threading.active_count() <= before + 2
