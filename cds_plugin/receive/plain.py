"""The texts of a usual header, read without pydicom: once each, of the right VR, in plain ASCII. Pure.

pydicom takes a millisecond for what the walk over the structure passes anyway. Whatever is unusual - another
VR, a value twice, a character beyond ASCII, a code extension, equipment that may be ours - is left to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

SPECIFIC_CHARACTER_SET = 0x00080005
ASCII_BELOW = frozenset({b"", b"ISO_IR 6", b"ISO_IR 100", b"ISO_IR 192"})
"""Character sets whose first 128 characters are ASCII (PS3.3 section C.12.1.1.2)."""
DISORDER = 0
"""Noted in place of an element that does not rise, or that lacks its VR where VRs are written."""
ASKS_MORE = frozenset({0x00181002, 0x0018A001, DISORDER})
"""Device UID and Contributing Equipment: who made the object takes more than a text."""
LONGEST_BYTES = 1024
"""A longer value is no usual one."""


@dataclass(frozen=True, slots=True)
class Text:
    """An element that is one text in a usual header."""

    keyword: str
    vr: bytes
    may_have_parts: bool = False


TEXTS: Mapping[int, Text] = {
    0x00080008: Text("ImageType", b"CS", may_have_parts=True),
    0x00080016: Text("SOPClassUID", b"UI"),
    0x00080018: Text("SOPInstanceUID", b"UI"),
    0x00080060: Text("Modality", b"CS"),
    0x00081030: Text("StudyDescription", b"LO"),
    0x0008103E: Text("SeriesDescription", b"LO"),
    0x00100020: Text("PatientID", b"LO"),
    0x00100021: Text("IssuerOfPatientID", b"LO"),
    0x0020000D: Text("StudyInstanceUID", b"UI"),
    0x0020000E: Text("SeriesInstanceUID", b"UI"),
    0x00280301: Text("BurnedInAnnotation", b"CS"),
}
NOTED = frozenset({SPECIFIC_CHARACTER_SET, *TEXTS, *ASKS_MORE})
"""What the walk over a data set must hand in."""


class Noted(NamedTuple):
    """An element of the header as it stands in the file; `vr` is empty where none is written."""

    tag: int
    vr: bytes
    value: bytes


def plain_texts(noted: list[Noted], implicit: bool) -> dict[str, str] | None:
    """Return the texts by keyword, stripped of padding; None where the header is not of the usual kind."""
    texts: dict[str, str] = {}
    seen: set[int] = set()
    for element in noted:
        if element.tag in seen or element.tag in ASKS_MORE:
            return None
        seen.add(element.tag)
        if element.tag == SPECIFIC_CHARACTER_SET:
            if element.vr not in (b"", b"CS") or element.value.strip(b" \0") not in ASCII_BELOW:
                return None
            continue
        meant = TEXTS[element.tag]
        text = _plain(element.value, meant)
        if text is None or element.vr != (b"" if implicit else meant.vr):
            return None
        texts[meant.keyword] = text
    return texts


def _plain(value: bytes, meant: Text) -> str | None:
    """Return a value of printable ASCII, padded as PS3.5 section 6.2 says; None for another."""
    bare = value.rstrip(b"\0" if meant.vr == b"UI" else b" ")
    if len(value) > LONGEST_BYTES or not bare.isascii() or (bare and not bare.decode().isprintable()):
        return None
    if b"\\" in bare and (not meant.may_have_parts or b" " in bare):
        return None
    return bare.decode().strip(" ")
