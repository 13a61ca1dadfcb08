"""Walk a data set without reading its values: is it complete, and how much would parsing load?

pydicom stops silently at the end of a truncated file, and would load a header of any size; this walk
says no before pydicom is asked (PS3.5 section 7).
"""

from __future__ import annotations

import io
import mmap
import struct
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from cds_plugin.receive.bounds import MEBIBYTE
from cds_plugin.receive.plain import DISORDER, LONGEST_BYTES, NOTED, Noted

ELEMENTS = 200_000
"""Elements of one data set, those in sequences of undefined length included."""
DEPTH = 24
"""Nested sequences; reports nest deepest, and stay far below."""
HEADER_BYTES = 32 * MEBIBYTE
"""What parsing the header may load into memory."""
DEFERRED_BYTES = 64 * 1024
"""A longer value stays on disk when the header is read."""

UNDEFINED = 0xFFFFFFFF
ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD
PIXEL_GROUP = 0x7FE00000
"""Pixel data, its float forms and what follows them."""
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""VRs with a 32 bit length in explicit VR (PS3.5 table 7.1-1)."""


class Unparsable(Exception):
    """The bytes are no complete data set; the text says why and holds nothing of the patient."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How elements are written: the two facts of a transfer syntax that matter here."""

    implicit: bool
    little_endian: bool


def encoding_of(transfer_syntax_uid: str) -> Encoding:
    """Return the encoding of an (inflated) data set; all but two syntaxes are explicit little endian."""
    return Encoding(
        implicit=transfer_syntax_uid == ImplicitVRLittleEndian,
        little_endian=transfer_syntax_uid != ExplicitVRBigEndian,
    )


class _Element(NamedTuple):
    tag: int
    vr: bytes
    length: int


_HEAD = {True: struct.Struct("<HH2sH"), False: struct.Struct(">HH2sH")}
_LONG = {True: struct.Struct("<I"), False: struct.Struct(">I")}
"""Tag, VR and short length of an element; its long length. By whether the order is little endian."""


class _Walk:
    """One pass over the bytes of a file, from `position` to its end."""

    def __init__(self, data: bytes | mmap.mmap, position: int) -> None:
        self._data = data
        self._position = position
        self._end = len(data)
        self._elements = 0
        self._header_bytes = 0
        self._in_header = True
        self._last = 0
        self.noted: list[Noted] = []

    def data_set(self, encoding: Encoding, depth: int, closed_by: int | None) -> None:
        """Pass the elements up to `closed_by`, or up to the end of the file where that is None."""
        if depth > DEPTH:
            raise Unparsable("sequences are nested too deeply")
        while (element := self._next(encoding)) is not None:
            if element.tag == closed_by:
                return
            self._check_tag(element, depth)
            if depth == 0:
                self._look_at(element, encoding)
            self._value(element, encoding, depth)
        if closed_by is not None:
            raise Unparsable("the file ends inside a sequence")

    def _next(self, encoding: Encoding) -> _Element | None:
        head = self._data[self._position : self._position + 8]
        if len(head) < 8:
            if head.strip(b"\0"):
                raise Unparsable("the file ends inside an element")
            return None
        self._position += 8
        self._elements += 1
        if self._elements > ELEMENTS:
            raise Unparsable("too many elements")
        return self._parse(head, encoding)

    def _parse(self, head: bytes, encoding: Encoding) -> _Element:
        group, number, vr, short = _HEAD[encoding.little_endian].unpack(head)
        tag = group << 16 | number
        long = _LONG[encoding.little_endian]
        if encoding.implicit or group == 0xFFFE or not (vr.isalpha() and vr.isupper()):
            return _Element(tag, b"", long.unpack_from(head, 4)[0])
        if vr not in LONG_VRS:
            return _Element(tag, vr, short)
        if self._position + 4 > self._end:
            raise Unparsable("the file ends inside an element")
        self._position += 4
        return _Element(tag, vr, long.unpack_from(self._data, self._position - 4)[0])

    def _check_tag(self, element: _Element, depth: int) -> None:
        group = element.tag >> 16
        if group < 0x0004 or group == 0xFFFE:
            raise Unparsable(f"an element of group {group:04x} stands in the data set")
        if depth == 0 and element.tag >= PIXEL_GROUP:
            self._in_header = False

    def _look_at(self, element: _Element, encoding: Encoding) -> None:
        """Note an element that decides, and disorder (PS3.5 section 7.1): readers differ on what follows."""
        if element.tag <= self._last or not (encoding.implicit or element.vr):
            self.noted.append(Noted(DISORDER, b"", b""))
        elif element.tag in NOTED:
            self._note(element)
        self._last = element.tag

    def _note(self, element: _Element) -> None:
        end = self._position + min(element.length, LONGEST_BYTES + 1)
        self.noted.append(Noted(element.tag, element.vr, self._data[self._position : end]))

    def _value(self, element: _Element, encoding: Encoding, depth: int) -> None:
        if element.length != UNDEFINED:
            self._skip(element.length, loaded=depth > 0 or element.length <= DEFERRED_BYTES)
            return
        inner = Encoding(implicit=True, little_endian=True) if element.vr == b"UN" else encoding
        self._items(inner, depth + 1)

    def _items(self, encoding: Encoding, depth: int) -> None:
        while (item := self._next(encoding)) is not None:
            if item.tag == SEQUENCE_END:
                return
            if item.tag != ITEM:
                raise Unparsable("a sequence holds something other than items")
            if item.length == UNDEFINED:
                self.data_set(encoding, depth, ITEM_END)
            else:
                self._skip(item.length, loaded=True)
        raise Unparsable("the file ends inside a sequence")

    def _skip(self, length: int, *, loaded: bool) -> None:
        position = self._position + length
        if position > self._end:
            raise Unparsable("the file ends inside an element")
        if self._in_header and loaded:
            self._header_bytes += length
            if self._header_bytes > HEADER_BYTES:
                raise Unparsable("the header is too large")
        self._position = position


def check_structure(file: BinaryIO, end: int, encoding: Encoding) -> list[Noted]:
    """Return the elements that decide (`plain.NOTED`) of a data set from the position up to `end` bytes.

    `end` is the size of the file. Raises Unparsable unless whole elements fill it.
    """
    if file.tell() >= end:
        raise Unparsable("the data set is empty")
    if isinstance(file, io.BytesIO):
        return _noted(file.getvalue(), file.tell(), encoding)
    with mmap.mmap(file.fileno(), end, access=mmap.ACCESS_READ) as data:
        return _noted(data, file.tell(), encoding)


def _noted(data: bytes | mmap.mmap, position: int, encoding: Encoding) -> list[Noted]:
    walk = _Walk(data, position)
    walk.data_set(encoding, depth=0, closed_by=None)
    return walk.noted
