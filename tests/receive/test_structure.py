"""The structural walk and the header: whole objects pass, every cut and every bomb is unparsable."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import pytest
from drawn_objects import a_photograph, written
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)
from pynetdicom.dsutils import split_dataset

from cds_plugin.receive.header import read_received, uid_problem
from cds_plugin.receive.structure import DEPTH, Encoding, Unparsable, check_structure, encoding_of

SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_whole_object_gives_its_facts(tmp_path: Path, syntax: str) -> None:
    picture = a_photograph(transfer_syntax=syntax, patient_id="Ärztin^X")
    picture.SpecificCharacterSet = "ISO_IR 192"
    picture.IssuerOfPatientID = "HOSPITAL"
    header = read_received(written(picture, tmp_path / "a.dcm"), syntax)
    assert header.sop_instance_uid == picture.SOPInstanceUID
    assert header.study_instance_uid == picture.StudyInstanceUID
    assert (header.patient_id, header.issuer_of_patient_id) == ("Ärztin^X", "HOSPITAL")
    assert header.image_type == ("ORIGINAL", "PRIMARY")
    assert not header.made_here


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_cut_is_unparsable(tmp_path: Path, syntax: str) -> None:
    whole = written(a_photograph(transfer_syntax=syntax, side=4), tmp_path / "a.dcm").read_bytes()
    _, offset = split_dataset(tmp_path / "a.dcm")
    boundaries = _element_ends(whole, offset, syntax)
    cut = tmp_path / "cut.dcm"
    for end in (*range(offset, len(whole) - 40, 7), *range(len(whole) - 40, len(whole) - 1)):
        cut.write_bytes(whole[:end])
        if end in boundaries:
            continue
        with pytest.raises(Unparsable):
            read_received(cut, syntax)


def _element_ends(whole: bytes, offset: int, syntax: str) -> set[int]:
    """Return where a cut leaves whole elements: nothing can tell that the rest is missing."""
    ends = set()
    if syntax != DeflatedExplicitVRLittleEndian:
        for end in range(offset + 1, len(whole)):
            try:
                file = io.BytesIO(whole[:end])
                file.seek(offset)
                check_structure(file, end, encoding_of(syntax))
            except Unparsable:
                continue
            ends.add(end)
        assert len(ends) < 40
    return ends


def test_sequences_of_both_lengths_pass(tmp_path: Path) -> None:
    picture = a_photograph()
    inner = Dataset()
    inner.CodeValue = "1"
    picture.AnatomicRegionSequence = Sequence([inner, Dataset()])
    picture["AnatomicRegionSequence"].is_undefined_length = True
    picture.AcquisitionContextSequence = Sequence([inner])
    header = read_received(written(picture, tmp_path / "a.dcm"), ExplicitVRLittleEndian)
    assert header.sop_instance_uid == picture.SOPInstanceUID


def test_a_trailing_zero_byte_is_padding(tmp_path: Path) -> None:
    path = written(a_photograph(), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes() + b"\0")
    assert read_received(path, ExplicitVRLittleEndian).patient_id == "P1"


def test_bottomless_sequences_are_unparsable() -> None:
    nested = (b"\x08\x00\x18\x22SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * (DEPTH + 2)
    with pytest.raises(Unparsable, match="nested"):
        check_structure(io.BytesIO(nested), len(nested), Encoding(implicit=False, little_endian=True))


def test_a_header_of_endless_small_elements_is_unparsable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cds_plugin.receive.structure.ELEMENTS", 100)
    many = b"\x09\x00\x10\x10LO\x02\x00ab" * 101
    with pytest.raises(Unparsable, match="too many"):
        check_structure(io.BytesIO(many), len(many), Encoding(implicit=False, little_endian=True))


def test_a_heavy_header_is_unparsable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cds_plugin.receive.structure.HEADER_BYTES", 1000)
    heavy = b"\x09\x00\x10\x10LO\x64\x00" + b"a" * 100
    with pytest.raises(Unparsable, match="header is too large"):
        check_structure(io.BytesIO(heavy * 11), 11 * len(heavy), Encoding(implicit=False, little_endian=True))


def test_a_deflate_bomb_is_unparsable(tmp_path: Path) -> None:
    path = written(a_photograph(transfer_syntax=DeflatedExplicitVRLittleEndian), tmp_path / "a.dcm")
    _, offset = split_dataset(path)
    press = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = press.compress(b"\0" * 20_000_000) + press.flush()
    path.write_bytes(path.read_bytes()[:offset] + bomb)
    with pytest.raises(Unparsable, match="too large"):
        read_received(path, DeflatedExplicitVRLittleEndian, inflated_bytes=1_000_000)
    assert list(tmp_path.iterdir()) == [path]


def test_a_long_value_stays_on_disk(tmp_path: Path) -> None:
    picture = a_photograph()
    picture.add_new(0x00091010, "OB", b"x" * 200_000)
    path = written(picture, tmp_path / "a.dcm")
    assert read_received(path, ExplicitVRLittleEndian).patient_id == "P1"


@pytest.mark.filterwarnings("ignore:The value")
def test_a_patient_id_of_a_book_is_unparsable(tmp_path: Path) -> None:
    path = written(a_photograph(patient_id="9" * 70_000), tmp_path / "a.dcm")
    with pytest.raises(Unparsable, match="too long"):
        read_received(path, ExplicitVRLittleEndian)


@pytest.mark.filterwarnings("ignore:The value")
def test_long_patient_ids_stay_different(tmp_path: Path) -> None:
    first, second = (
        read_received(
            written(a_photograph(patient_id="9" * 200 + end), tmp_path / end), ExplicitVRLittleEndian
        )
        for end in ("a", "b")
    )
    assert len(first.patient_id) == len(second.patient_id) == 128
    assert first.patient_id != second.patient_id


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.booleans(), st.booleans())
def test_random_bytes_never_crash_the_walk(noise: bytes, implicit: bool, little_endian: bool) -> None:
    try:
        check_structure(io.BytesIO(noise), len(noise), Encoding(implicit, little_endian))
    except Unparsable:
        return


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None)
@given(position=st.floats(0, 1), value=st.integers(0, 255), syntax=st.sampled_from(SYNTAXES))
def test_one_wrong_byte_never_crashes_the_header(
    tmp_path_factory: pytest.TempPathFactory, position: float, value: int, syntax: str
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    path = written(a_photograph(transfer_syntax=syntax, side=2), folder / "a.dcm")
    _, offset = split_dataset(path)
    data = bytearray(path.read_bytes())
    data[offset + int(position * (len(data) - offset - 1))] = value
    path.write_bytes(data)
    try:
        read_received(path, syntax)
    except Unparsable:
        return


@pytest.mark.parametrize(
    ("uid", "problem"),
    [
        ("1.2.840.10008.1", None),
        ("2.25.0", None),
        ("", "missing"),
        ('"1.2.3"', "quoted"),
        ("1.2.'3", "quoted"),
        ("1.02.3", "invalid"),
        ("1..2", "invalid"),
        ("1.2.3\n", "invalid"),
        ("1.2\\1.3", "invalid"),
        ("../../etc/passwd", "invalid"),
        ("1." + "2" * 63, "invalid"),
        ("1.٣", "invalid"),
    ],
)
def test_uids(uid: str, problem: str | None) -> None:
    assert uid_problem(uid) == problem
