"""What an encoded stream says of itself, and how to keep a JPEG without its metadata (ISO 10918-1 B.1)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cds_plugin.errors import Refused

START = b"\xff\xd8"
END = b"\xff\xd9"
SOF_BASELINE = 0xC0
SOF_LS = 0xF7
SOS = 0xDA
APP0 = 0xE0
APP14 = 0xEE
COMMENT = 0xFE
CODING_STYLE = 0xFF52
FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {SOF_LS}
APPLICATION_MARKERS = frozenset(range(0xE0, 0xF0))
MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Entropy-coded data holds FF only as stuffing, restart marker or fill (ISO 10918-1 B.1.1.5)."""
ADOBE_SAYS_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
"""An Adobe segment with transform 0: no decoder may convert these samples."""
ADOBE_SAYS_YCC = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01"


@dataclass(frozen=True, slots=True)
class Frame:
    """The frame header; `component_ids` as written, `adobe_transform` 0 (RGB) or 1 (YCbCr) where stated."""

    marker: int
    precision: int
    rows: int
    columns: int
    component_ids: tuple[int, ...]
    jfif: bool
    adobe_transform: int | None

    @property
    def names_its_colour(self) -> bool:
        """Return whether the stream itself says if its samples are RGB or YCbCr."""
        return self.jfif or self.adobe_transform is not None or self.component_ids == RGB_IDS

    @property
    def is_rgb(self) -> bool:
        """Return whether the stream itself says that its samples are RGB, as libjpeg reads it."""
        if self.jfif:
            return False
        if self.adobe_transform is not None:
            return self.adobe_transform == 0
        return self.component_ids == RGB_IDS


RGB_IDS = (ord("R"), ord("G"), ord("B"))


@dataclass(frozen=True, slots=True)
class _Segment:
    marker: int
    start: int
    end: int


def read_frame(data: bytes) -> Frame:
    """Return the frame header of a JPEG or JPEG-LS stream; raises Refused `damaged_pixels` without one."""
    jfif, adobe = False, None
    for segment in _segments(data):
        body = data[segment.start + 4 : segment.end]
        if segment.marker == APP0 and body.startswith(b"JFIF\0"):
            jfif = True
        elif segment.marker == APP14 and body.startswith(b"Adobe") and len(body) >= 12:
            adobe = body[11]
        elif segment.marker in FRAME_MARKERS:
            return _frame(segment.marker, body, _colour_segments_after(data, segment, jfif, adobe))
    raise damaged()


def damaged() -> Refused:
    """Return the refusal of a stream that cannot be decoded."""
    return Refused("damaged_pixels", "The pixel data is truncated or damaged.", "Send the object again.")


def _colour_segments_after(
    data: bytes, frame: _Segment, jfif: bool, adobe: int | None
) -> tuple[bool, int | None]:
    """Return what APP0 and APP14 say; libjpeg also honours those between frame and scan."""
    for segment in _segments(data, frame.end):
        body = data[segment.start + 4 : segment.end]
        jfif = jfif or (segment.marker == APP0 and body.startswith(b"JFIF\0"))
        if segment.marker == APP14 and body.startswith(b"Adobe") and len(body) >= 12:
            adobe = body[11]
    return jfif, adobe


def _frame(marker: int, body: bytes, colour: tuple[bool, int | None]) -> Frame:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise damaged()
    precision, rows, columns, count = struct.unpack(">BHHB", body[:6])
    ids = tuple(body[6 + 3 * index] for index in range(count))
    return Frame(marker, precision, rows, columns, ids, *colour)


def _segments(data: bytes, position: int = 2) -> Iterator[_Segment]:
    """Yield the segments from `position` up to and including the first start of scan."""
    if not data.startswith(START):
        raise damaged()
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise damaged()
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        end = position + 2 + struct.unpack(">H", data[position + 2 : position + 4])[0]
        yield _Segment(marker, position, end)
        if marker == SOS:
            return
        position = end
    raise damaged()


def without_metadata(data: bytes) -> bytes:
    """Return a JPEG stream up to its first end of image, without APPn (but JFIF and Adobe) and comments.

    EXIF, XMP and maker notes may hold names and places; the coefficients stay bit for bit.
    """
    kept, position = [START], 2
    while True:
        for segment in _segments(data, position):
            if _is_needed(data, segment):
                kept.append(data[segment.start : segment.end])
        found = MARKER_AFTER_SCAN.search(data, segment.end)
        if found is None:
            raise damaged()
        kept.append(data[segment.end : found.start()])
        position = found.start()
        if found.group() == END:
            return b"".join((*kept, END))


def is_whole_between_scans(data: bytes) -> bool:
    """Return whether no marker segment reaches beyond the end of a stream; its scans may be cut off."""
    position = max(segment.end for segment in _segments(data))
    while position <= len(data):
        found = MARKER_AFTER_SCAN.search(data, position)
        if found is None or found.group() == END:
            return True
        length = data[found.end() : found.end() + 2]
        position = found.end() + int.from_bytes(length) if len(length) == 2 else len(data) + 1
    return False


def _is_needed(data: bytes, segment: _Segment) -> bool:
    body = data[segment.start + 4 : segment.end]
    if segment.marker == APP0:
        return body.startswith(b"JFIF\0")
    if segment.marker == APP14:
        return body.startswith(b"Adobe")
    return segment.marker not in APPLICATION_MARKERS and segment.marker != COMMENT


def stating_colour(data: bytes, rgb: bool) -> bytes:
    """Return the stream with an Adobe segment up front that says whether its samples are RGB or YCbCr."""
    return START + (ADOBE_SAYS_RGB if rgb else ADOBE_SAYS_YCC) + data[2:]


def wavelet_transforms_colour(data: bytes) -> bool:
    """Return whether a JPEG 2000 stream holds a colour transform and so yields RGB (ISO 15444-1 A.6.1)."""
    start = data.find(b"\xff\x4f\xff\x51")
    position = start + 2
    while start >= 0 and position + 9 <= len(data):
        marker, length = struct.unpack(">HH", data[position : position + 4])
        if marker == CODING_STYLE:
            return data[position + 8] == 1
        position += 2 + length
    raise damaged()
