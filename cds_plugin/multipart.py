"""A multipart/related body as a stream of parts, within bounds and never held in memory (RFC 2046, RFC 2387).

It does no input or output: bytes are fed in as they come, events come out. DICOMweb retrieves and stores
with it (PS3.18 section 8.6.1.2.1). The parser is python-multipart's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import Message

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from cds_plugin.errors import Refused

BOUNDARY_CHARACTERS = 200
"""RFC 2046 section 5.1.1 allows 70, and Orthanc writes 73."""
HEADER_FIELDS = 16
"""Of one part; DICOMweb needs two or three."""
HEADER_FIELD_BYTES = 4 * 1024
"""One field of a part's header: a media type with its parameters."""
PREAMBLE_BYTES = 4 * 1024
"""What may stand before the first delimiter, to be ignored (RFC 2046 section 5.1.1); DICOMweb sends none."""

_SILENT = logging.getLogger(f"{__name__}.silent")
_SILENT.disabled = True
"""python-multipart quotes the byte that it stumbled over; the refusal says what was wrong."""
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]*[0-9A-Za-z'()+_,./:=?-]")


@dataclass(frozen=True, slots=True)
class PartBegun:
    """The header fields of the next part; names are in lower case."""

    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PartBytes:
    """Some more of the part's content, never empty."""

    content: bytes


@dataclass(frozen=True, slots=True)
class PartEnded:
    """The part is complete."""


PartEvent = PartBegun | PartBytes | PartEnded


@dataclass(frozen=True, slots=True)
class MultipartBounds:
    """How many parts a body may have, and how long each may be."""

    parts: int
    part_bytes: int


class MultipartReader:
    """Feed it a body in pieces of any size; it raises Refused (`bad_multipart`, `multipart_too_large`)."""

    def __init__(self, boundary: str, bounds: MultipartBounds) -> None:
        self._bounds = bounds
        self._events: list[PartEvent] = []
        self._headers: dict[str, str] = {}
        self._field = self._value = b""
        self._parts = 0
        self._part_bytes = 0
        self._over = False
        self._delimiter = b"\r\n--" + boundary.encode("latin-1")
        self._preamble: bytes | None = b"\r\n"
        self._failure: Refused | None = None
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_field,
                "on_header_value": self._on_value,
                "on_header_end": self._end_field,
                "on_headers_finished": lambda: self._events.append(PartBegun(self._headers)),
                "on_part_data": self._on_content,
                "on_part_end": lambda: self._events.append(PartEnded()),
                "on_end": self._end,
            },
            max_header_count=HEADER_FIELDS,
            max_header_size=HEADER_FIELD_BYTES,
        )
        self._parser.logger = _SILENT

    def feed(self, data: bytes) -> Sequence[PartEvent]:
        """Return what these bytes complete, in order.

        What stands before a fault is returned, too, whatever the pieces; the next call raises Refused.
        """
        self._events = []
        if self._failure is None:
            self._failure = self._failure_of(data)
        if self._failure is not None and not self._events:
            raise self._failure
        return self._events

    def _failure_of(self, data: bytes) -> Refused | None:
        try:
            self._parser.write(data if self._preamble is None else self._behind_preamble(data))
        except FormParserError:
            return _malformed("the body is no multipart body")
        except Refused as refusal:
            return refusal
        return None

    def _behind_preamble(self, data: bytes) -> bytes:
        """Return what of these bytes, and of those before, begins with the first delimiter.

        python-multipart ignores a preamble only where it begins with a new line and comes in one piece.
        """
        seen = (self._preamble or b"") + data
        start = seen.find(self._delimiter)
        if (start if start >= 0 else len(seen) - len(self._delimiter)) > PREAMBLE_BYTES:
            raise _malformed("the body is no multipart body")
        self._preamble = seen if start < 0 else None
        return seen[start + 2 :] if start >= 0 else b""

    def finish(self) -> None:
        """Say that the body ended. Raises Refused where it had a fault, or ended before it was closed."""
        if self._failure is not None:
            raise self._failure
        if not self._over:
            raise _malformed("the body ends before its closing delimiter")

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > self._bounds.parts:
            raise _too_large(f"more than {self._bounds.parts} parts")
        self._headers = {}
        self._field = self._value = b""
        self._part_bytes = 0

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_field(self) -> None:
        self._headers[self._field.decode("latin-1").lower()] = self._value.decode("latin-1").strip()
        self._field = self._value = b""

    def _on_content(self, data: bytes, start: int, end: int) -> None:
        self._part_bytes += end - start
        if self._part_bytes > self._bounds.part_bytes:
            raise _too_large(f"a part of more than {self._bounds.part_bytes} bytes")
        self._events.append(PartBytes(data[start:end]))

    def _end(self) -> None:
        self._over = True


def boundary_of(content_type: str, part_type: str) -> str:
    """Return the boundary of a multipart/related body whose parts are of `part_type`.

    Raises Refused (`bad_media_type`) where the header field says something else.
    """
    field = Message()
    field["content-type"] = " ".join(content_type.split())
    said = str(field.get_param("type", part_type)).strip().lower()
    if field.get_content_type() != "multipart/related" or said != part_type:
        raise Refused(
            "bad_media_type", f"the body is no multipart/related of {part_type}", "Send the right media type."
        )
    boundary = str(field.get_param("boundary", ""))
    if len(boundary) > BOUNDARY_CHARACTERS or not _BOUNDARY.fullmatch(boundary):
        raise Refused("bad_media_type", "the media type has no valid boundary", "Send a boundary.")
    return boundary


def _malformed(what: str) -> Refused:
    return Refused("bad_multipart", what, "The sender must write it by RFC 2046.")


def _too_large(what: str) -> Refused:
    return Refused("multipart_too_large", what, "Send less at once.")
