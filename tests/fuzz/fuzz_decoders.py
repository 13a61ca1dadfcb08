"""Targets of the decoders: what the decoding child does with a file, in this process and with its limits."""

from __future__ import annotations

import ctypes
import io
import os
import resource
import threading
import time
import traceback
import warnings
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from invariants import Breach, Watch, watched
from picture_forms import FORMS, Form
from PIL import Image

from cds_plugin.errors import Refused
from cds_plugin.photograph.child import address_space_bytes, decode_limited
from cds_plugin.photograph.exchange import Kind, Reply, Request
from cds_plugin.photograph.facts import ColourSource
from cds_plugin.photograph.header import header_of

CODES = frozenset(
    {
        *("not_dicom", "truncated_header", "header_too_large", "malformed_header", "missing_uid"),
        *("invalid_uid", "not_an_image", "too_many_frames", "no_pixels", "too_many_pixels", "too_small"),
        *("unsupported_transfer_syntax", "not_colour", "not_8_bit", "unsupported_colour", "no_pixel_data"),
        *("stream_differs_from_header", "damaged_pixels", "not_a_picture", "animated", "transparent"),
    }
)
"""What `Decoder.decode` and `decode_picture` say that they refuse with."""
DECODE_SECONDS = 2.0
"""Processor time for a picture of at most 512 x 512 pixels; the child would be killed after a minute."""
REFUSALS_ASKED_ONCE = 8
"""Every picture is decoded twice, but only one refusal in so many."""
BYTES = 16 * 1024
PERTURB = -6
"""M_PERTURB of mallopt(3): fresh memory is filled with a byte, so that what was never written shows."""
FILLS = 0x55, 0xAA
_LIBC = ctypes.CDLL(None)
Answer = tuple[Reply | None, str, bytes]
"""A reply, or the code of a refusal, and what was written as pixels."""


@dataclass
class Decoding:
    """The decoding child's work on one form of inputs; a context manager."""

    form: Form
    longest: int = BYTES

    def __enter__(self) -> Decoding:
        self._opened = ExitStack()
        self._opened.enter_context(warnings.catch_warnings(action="ignore"))
        self._opened.callback(_fill_memory, 0)
        self._watch: Watch = self._opened.enter_context(watched())
        for seed in self.form.seeds():
            _answer(*self.form.file(seed), own_bytes=2**40)
        self._own_bytes = address_space_bytes()
        self._left = _left()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def one(self, data: bytes) -> None:
        """Decode a file twice, in memory of another filling, and check what comes of it."""
        request, content = self.form.file(data)
        answer = self._timed(request, content, FILLS[0])
        _check(request, answer)
        if answer[0] is not None or zlib.crc32(data) % REFUSALS_ASKED_ONCE == 0:
            again = self._timed(request, content, FILLS[1])
            if answer != again:
                raise Breach(f"not the same answer twice: {_short(answer)}, {_short(again)}")
        left = _left()
        if left[0] > self._left[0] or left[1] > self._left[1]:
            raise Breach(f"threads and descriptors left: {left}, {self._left} before")
        self._watch.check()

    def _timed(self, request: Request, content: bytes, fill: int) -> Answer:
        _fill_memory(fill)
        began = time.process_time()
        answer = _answer(request, content, self._own_bytes)
        if (took := time.process_time() - began) > DECODE_SECONDS:
            raise Breach(f"{len(content)} bytes took {took:.0f} s of processor time")
        return answer

    def settled(self) -> None:
        """Nothing here settles later."""


def opening(name: str) -> Callable[[], Decoding]:
    """Return what opens the target of a form."""
    return lambda: Decoding(FORMS[name])


def _answer(request: Request, content: bytes, own_bytes: int) -> Answer:
    """Ask as the child does; a library's exception is a refusal, one of our own code is a breach."""
    file, pixels = os.memfd_create("file"), os.memfd_create("pixels")
    os.write(file, content)
    try:
        reply, code = decode_limited(request, own_bytes, file, pixels), ""
    except Refused as refusal:
        _check_refusal(refusal)
        reply, code = None, refusal.code
    except MemoryError:
        reply, code = None, "too_much_memory"
    except Exception as error:  # noqa: BLE001 - as in the child: whatever a codec raises
        _check_raised_by_library(error)
        reply, code = None, f"damaged_pixels ({type(error).__name__})"
    finally:
        _unlimited()
        size = os.fstat(pixels).st_size
        written = os.pread(pixels, size, 0)
        os.close(pixels)
    return reply, code, written if reply is not None else b""


def _unlimited() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _fill_memory(byte: int) -> None:
    _LIBC.mallopt(PERTURB, byte)


def _left() -> tuple[int, int]:
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def _check_refusal(refusal: Refused) -> None:
    if refusal.code not in CODES:
        raise Breach(f"a refusal with the code {refusal.code}")
    if not refusal.action or not refusal.message:
        raise Breach(f"a refusal that says not what to do: {refusal.code}")


def _check_raised_by_library(error: Exception) -> None:
    """Our own code refuses what it does not understand, and nothing comes out of a header.

    A worker reads headers itself, before it asks the child.
    """
    frames = traceback.extract_tb(error.__traceback__)
    place = frames[-1]
    if "cds_plugin/" in place.filename or any(each.name == header_of.__name__ for each in frames):
        raise Breach(f"{type(error).__name__} in {place.name}: {error}") from error


def _check(request: Request, answer: Answer) -> None:
    """What was announced is what was written."""
    reply, _, written = answer
    if reply is None:
        return
    sizes = reply.pixel_bytes, reply.profile_bytes, reply.jpeg_bytes
    if len(written) != sum(sizes):
        raise Breach(f"announced {sizes}, written {len(written)} bytes")
    if not 0 < reply.rows * reply.columns <= request.max_pixels or min(reply.rows, reply.columns) < 1:
        raise Breach(f"a picture of {reply.rows} x {reply.columns}")
    ColourSource(reply.colour)
    if reply.jpeg_bytes:
        _check_kept_stream(reply, written[-reply.jpeg_bytes :])
    elif request.kind is Kind.DICOM and reply.profile_bytes:
        raise Breach("a profile of a DICOM object")


def _check_kept_stream(reply: Reply, stream: bytes) -> None:
    """A stream that is kept shows the same picture and says nothing else."""
    with Image.open(io.BytesIO(stream), formats=("JPEG",)) as picture:
        if picture.size != (reply.columns, reply.rows):
            raise Breach(f"a kept stream of {picture.size}")
        if picture.getexif() or "comment" in picture.info or "icc_profile" in picture.info:
            raise Breach("a kept stream has metadata")


def _short(answer: Answer) -> str:
    reply, code, written = answer
    return f"{code or reply} and {len(written)} bytes"
