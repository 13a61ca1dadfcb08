"""The short reading of a header says what pydicom says, or nothing."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.filereader import read_dataset

from cds_plugin.receive import header
from cds_plugin.receive.plain import TEXTS, plain_texts
from cds_plugin.receive.structure import Encoding, check_structure

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

USUAL = {
    0x00080008: b"ORIGINAL\\PRIMARY ",
    0x00080016: b"1.2.840.10008.5.1.4.1.1.77.1.4",
    0x00080018: b"1.2.3\0",
    0x00100020: b"P 1 ",
    0x0020000D: b"1.2",
}
VALUE = st.one_of(
    st.text("AZ09._^= \\\0", max_size=12).map(lambda text: text.encode()),
    st.binary(max_size=12),
    st.text(max_size=6).map(lambda text: text.encode("utf-8")),
)
CHARACTER_SETS = st.sampled_from(
    [b"", b"ISO_IR 100", b"ISO_IR 192", b"ISO_IR 13 ", b"ISO 2022 IR 6\\ISO 2022 IR 87", b"NONSENSE"]
)


def encoded(values: dict[int, bytes], implicit: bool, vrs: dict[int, bytes] | None = None) -> bytes:
    """Return a data set with these values as they are, padded to even length by one of their padding."""
    out = b""
    for tag, value in sorted(values.items()):
        vr = (vrs or {}).get(tag) or (TEXTS[tag].vr if tag in TEXTS else b"CS")
        even = value + (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
        head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        head += struct.pack("<I", len(even)) if implicit else vr + struct.pack("<H", len(even))
        out += head + even
    return out


def both(data: bytes, implicit: bool) -> tuple[header.Header | None, header.Header]:
    """Return the header as it is read shortly, if it is, and as pydicom reads it."""
    noted = check_structure(io.BytesIO(data), len(data), Encoding(implicit, little_endian=True))
    texts = plain_texts(noted, implicit)
    plain = None
    if texts is not None:
        plain = header._header(lambda keyword: texts.get(keyword, ""), made_here=False)
    return plain, header._facts(read_dataset(io.BytesIO(data), implicit, True))


@pytest.mark.parametrize("implicit", [True, False])
def test_a_usual_header_is_read_shortly(implicit: bool) -> None:
    plain, full = both(encoded({**USUAL, 0x00080005: b"ISO_IR 192"}, implicit), implicit)
    assert plain == full
    assert full.patient_id == "P 1" and full.image_type == ("ORIGINAL", "PRIMARY")


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(TEXTS)), VALUE, min_size=1), CHARACTER_SETS, st.booleans())
@example({0x00100020: b"A\\B"}, b"", False)
@example({0x00080008: b" A \\ B "}, b"", False)
@example({0x00080016: b"1.2 "}, b"", True)
@example({0x00100020: b"\x1b$B"}, b"ISO_IR 13 ", False)
@example({0x00100020: b"P~1"}, b"ISO_IR 13 ", False)
def test_what_is_read_shortly_is_what_pydicom_reads(
    values: dict[int, bytes], character_set: bytes, implicit: bool
) -> None:
    plain, full = both(encoded({**values, 0x00080005: character_set}, implicit), implicit)
    assert plain is None or plain == full


@pytest.mark.parametrize(
    "data",
    [
        encoded({**USUAL, 0x00181002: b"1.2"}, False),
        encoded(USUAL, False, {0x00100020: b"SH"}),
        encoded(USUAL, False) + encoded({0x00100020: b"P2"}, False),
        encoded({**USUAL, 0x00100020: "Ä".encode()}, False),
        encoded({**USUAL, 0x00081030: b"x" * 2000}, False),
    ],
    ids=["device", "another VR", "twice", "beyond ASCII", "long"],
)
def test_what_is_unusual_is_left_to_pydicom(data: bytes) -> None:
    plain, _ = both(data, implicit=False)
    assert plain is None
