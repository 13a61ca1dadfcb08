"""Reading a header stops before the pixels, is bounded, and leaks no exception of a library."""

from __future__ import annotations

import struct
import time
import warnings
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cds_plugin.errors import Refused
from cds_plugin.photograph import header as header_module
from cds_plugin.photograph import pixel_spacing_mm, read_header

from .conftest import Write

SECONDS_PER_HEADER = 0.05
"""Generous for a slow machine, in processor time."""


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
def test_all_but_the_pixels_is_read(photograph: Dataset, write: Write, syntax: str) -> None:
    header = read_header(write(photograph, syntax))
    assert header.SOPInstanceUID == photograph.SOPInstanceUID
    assert header.file_meta.TransferSyntaxUID == syntax
    assert "PixelData" not in header
    assert pixel_spacing_mm(header) == (0.02, 0.02)


@pytest.mark.parametrize("kept", ["with meta", "bare data set"])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_files_without_a_preamble(photograph: Dataset, write: Write, syntax: str, kept: str) -> None:
    path = write(photograph, syntax)
    whole = path.read_bytes()
    meta_bytes = struct.unpack("<I", whole[140:144])[0]
    path.write_bytes(whole[132:] if kept == "with meta" else whole[144 + meta_bytes :])
    assert read_header(path).PatientID == "DRAWN-1"


def test_headers_are_read_fast(photograph: Dataset, write: Write) -> None:
    path = write(photograph, PixelData=b"\0" * 50_000_000)
    read_header(path)
    start = time.process_time()
    for _ in range(10):
        read_header(path)
    assert (time.process_time() - start) / 10 < SECONDS_PER_HEADER


def test_an_unreadable_element_harms_nothing(photograph: Dataset, write: Write) -> None:
    photograph.add_new(0x00181411, "DS", "12")
    path = write(photograph)
    path.write_bytes(
        path.read_bytes().replace(b"\x18\x00\x11\x14DS\x02\x0012", b"\x18\x00\x11\x14DS\x02\x00xy")
    )
    header = read_header(path)
    assert str(header.get("ExposureIndex")) == "xy"
    assert header.Rows == photograph.Rows


def test_values_of_the_patient_are_not_warned_about(photograph: Dataset, write: Write) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write(photograph, StudyInstanceUID="Drawn^Person")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module=header_module.PYDICOM_MODULES)
        read_header(path)
    assert caught == []


def test_a_deflated_bomb_is_not_inflated(tmp_path: Path, photograph: Dataset, write: Write) -> None:
    whole = write(photograph, DeflatedExplicitVRLittleEndian).read_bytes()
    start = 144 + struct.unpack("<I", whole[140:144])[0]
    element = b"\x09\x00\x10\x10OB\0\0" + struct.pack("<I", 2**28)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = (
        squeeze.compress(element)
        + b"".join(squeeze.compress(b"\0" * 2**20) for _ in range(256))
        + squeeze.flush()
    )
    path = tmp_path / "bomb.dcm"
    path.write_bytes(whole[:start] + bomb)
    begun = time.process_time()
    with pytest.raises(Refused):
        read_header(path)
    assert time.process_time() - begun < 5


def test_a_header_of_too_many_elements(tmp_path: Path, photograph: Dataset, write: Write) -> None:
    path = write(photograph)
    item = (
        b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
        + b"\x08\x00\x08\x00CS\x00\x00" * 250_000
        + b"\xfe\xff\x0d\xe0\0\0\0\0"
    )
    sequence = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + item + b"\xfe\xff\xdd\xe0\0\0\0\0"
    whole = path.read_bytes()
    start = 144 + struct.unpack("<I", whole[140:144])[0]
    path.write_bytes(whole[:start] + sequence + whole[start:])
    with pytest.raises(Refused, match="header_too_large"):
        read_header(path)


@pytest.mark.parametrize(
    ("sequences", "items", "vr"), [(1, 60_000, b"SQ"), (9, 3_000, b"SQ"), (40, 4_000, b"UN")]
)
def test_sequences_of_too_many_items(
    photograph: Dataset, write: Write, sequences: int, items: int, vr: bytes
) -> None:
    """Each item of eight bytes takes some 700 once it is parsed, in the process of whoever asks."""
    path = write(photograph)
    content = b"\xfe\xff\x00\xe0\0\0\0\0" * items
    head = [struct.pack("<HH2sHL", 0x0009, 0x1010 + each, vr, 0, len(content)) for each in range(sequences)]
    whole = path.read_bytes()
    start = 144 + struct.unpack("<I", whole[140:144])[0]
    path.write_bytes(whole[:start] + b"".join(each + content for each in head) + whole[start:])
    with pytest.raises(Refused, match="header_too_large"):
        read_header(path)


def test_sequences_nested_without_end(photograph: Dataset, write: Write) -> None:
    inner = Dataset()
    for _ in range(40):
        outer = Dataset()
        outer.ReferencedImageSequence = Sequence([inner])
        inner = outer
    photograph.ReferencedImageSequence = Sequence([inner])
    with pytest.raises(Refused, match="malformed_header"):
        read_header(write(photograph))


@pytest.mark.parametrize("value", [None, [0, 0], [-1, 1], [1e9, 1], [float("nan"), 1], [0.1]])
def test_spacing_that_measures_nothing(value: list[float] | None) -> None:
    header = Dataset()
    if value is not None:
        header.add_new("PixelSpacing", "DS", [str(each) for each in value])
    assert pixel_spacing_mm(header) is None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutilated_headers_are_read_or_refused(
    photograph: Dataset, write: Write, tmp_path: Path, data: st.DataObject
) -> None:
    whole = bytearray(_written_once(photograph, write, tmp_path))
    for _ in range(data.draw(st.integers(1, 12))):
        whole[data.draw(st.integers(0, 700))] = data.draw(st.integers(0, 255))
    path = tmp_path / "mutilated.dcm"
    path.write_bytes(whole[: data.draw(st.integers(0, 2000))])
    try:
        read_header(path)
    except Refused:
        return


def _written_once(photograph: Dataset, write: Write, folder: Path) -> bytes:
    first = folder / "0.dcm"
    return (first if first.exists() else write(photograph)).read_bytes()
