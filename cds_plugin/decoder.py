"""Decodes pictures in a warm child process: a hostile file costs the child, never the caller."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from pydicom.dataset import Dataset

from cds_plugin.errors import Refused, Unavailable
from cds_plugin.photograph import (
    ColourSource,
    Photograph,
    Picture,
    check_decodable,
    frame_count,
    pixel_spacing_mm,
)
from cds_plugin.photograph.checks import frame_size
from cds_plugin.photograph.exchange import READY, Kind, Refusal, Reply, Request, receive_answer, send_request
from cds_plugin.photograph.header import header_of, opened
from cds_plugin.study import Rgb

START_SECONDS = 120.0
"""Importing the codecs takes about a second; it took 25 on a machine short of disk and processor."""
DECODE_SECONDS = 60.0
"""Any picture of ordinary size takes well under a second; a busy machine may take its time."""
SECONDS_PER_PIXEL = 1.5e-6
"""RLE in Python is the slowest way, at about a quarter of this."""
PROFILE_BYTES = 64 * 2**20
"""An ICC profile that a PNG file holds compressed; Pillow stops long before."""
CLOSE_SECONDS = 2.0
KEPT_VARIABLES = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
"""All that the child gets of the environment: no passwords, whatever a codec may be talked into."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
"""Threads would only reserve address space, which is what the limit counts."""


@dataclass(frozen=True, slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    channel: socket.socket
    owner: int
    """The process that started it: after a fork the copy must not talk to it."""


class Decoder:
    """A child that decodes one file after another; started at the first one, replaced after a failure.

    May be used from several threads, one file at a time. Close it, or use it as a context manager; it also
    dies with the process (to be exact, with the thread) that started it.
    """

    def __init__(self, seconds: float = DECODE_SECONDS) -> None:
        self._seconds = seconds
        self._child: _Child | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def decode(self, path: Path, max_pixels: int, frame: int = 1) -> Photograph:
        """Return the photograph in a DICOM file, or that frame of it where it has several.

        Raises Refused for all that is wrong with the file (codes: see `read_header` and `check_decodable`;
        no_pixel_data, stream_differs_from_header, damaged_pixels, too_much_memory, decoding_too_slow,
        decoder_crashed), Unavailable when the file or the child cannot be opened.
        """
        with opened(path) as stream:
            header = header_of(stream)
            check_decodable(header, max_pixels)
            _check_number(frame, header)
            with self._decoded(stream.fileno(), Request(Kind.DICOM, max_pixels, frame)) as (reply, pixels):
                if (reply.rows, reply.columns) != frame_size(header):
                    raise Refused(
                        "damaged_pixels", "The decoded picture has another size.", "Send the object again."
                    )
                rgb = _read_rgb(pixels, reply)
        return Photograph(header, rgb, pixel_spacing_mm(header), ColourSource(reply.colour), frame)

    def decode_picture(self, path: Path, max_pixels: int) -> Picture:
        """Return a JPEG or PNG, upright; raises Refused and Unavailable as `decode` does."""
        request = Request(Kind.PICTURE, max_pixels)
        with opened(path) as stream, self._decoded(stream.fileno(), request) as (reply, pixels):
            profile = _read(pixels, reply.profile_bytes, reply.pixel_bytes)
            jpeg = _read(pixels, reply.jpeg_bytes, reply.pixel_bytes + reply.profile_bytes)
            return Picture(
                _read_rgb(pixels, reply), profile or None, reply.lossy, jpeg or None, reply.jpeg_is_rgb
            )

    def close(self) -> None:
        """End the child; the next file starts another."""
        with self._lock:
            self._drop()

    @contextmanager
    def _decoded(self, file: int, request: Request) -> Iterator[tuple[Reply, int]]:
        """Yield the reply and the descriptor of the pixels: memory without a name, gone when closed."""
        pixels = os.memfd_create("pixels")
        try:
            with self._lock:
                answer = self._ask(file, request, pixels) or self._ask_another(file, request, pixels)
            if isinstance(answer, Refusal):
                raise Refused(answer.code, answer.message, answer.action)
            announced = answer.pixel_bytes + answer.profile_bytes + answer.jpeg_bytes
            if announced > _most_bytes(file, request) or os.fstat(pixels).st_size != announced:
                raise Refused(
                    "damaged_pixels",
                    "The decoded picture is not as large as announced.",
                    "Send the object again.",
                )
            yield answer, pixels
        finally:
            os.close(pixels)

    def _ask_another(self, file: int, request: Request, pixels: int) -> Reply | Refusal:
        """Ask a fresh child once more: the one before may have died of something else than this file."""
        os.ftruncate(pixels, 0)
        os.lseek(pixels, 0, os.SEEK_SET)
        answer = self._ask(file, request, pixels)
        return answer or Refusal(
            "decoder_crashed", "Decoding crashed twice.", "Send the object again, re-encoded."
        )

    def _ask(self, file: int, request: Request, pixels: int) -> Reply | Refusal | None:
        """Return the child's answer, or None when it died instead."""
        child = self._running()
        child.channel.settimeout(self._seconds + SECONDS_PER_PIXEL * request.max_pixels)
        try:
            send_request(child.channel, request, file, pixels)
            answer = receive_answer(child.channel)
        except TimeoutError:
            child.process.kill()
            self._drop()
            return Refusal(
                "decoding_too_slow", "Decoding takes too long.", "Send the object again, re-encoded."
            )
        except ConnectionError:
            answer = None
        if answer is None:
            self._drop()
        return answer

    def _running(self) -> _Child:
        child = self._child
        if child is None or child.owner != os.getpid() or child.process.poll() is not None:
            self._drop()
            child = self._child = _start()
        return child

    def _drop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.channel.close()
        if child.owner == os.getpid():
            _end(child.process)


def _most_bytes(file: int, request: Request) -> int:
    """Return how many bytes an answer may have; a profile may have been compressed in its file."""
    return 3 * request.max_pixels + os.fstat(file).st_size + PROFILE_BYTES


def _check_number(frame: int, header: Dataset) -> None:
    count = frame_count(header) or 1
    if not 1 <= frame <= count:
        raise Refused("no_such_frame", f"There is no frame {frame} of {count}.", "Ask for another frame.")


def _start() -> _Child:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [
            sys.executable,
            "-P",
            "-m",
            "cds_plugin.photograph.child",
            str(theirs.fileno()),
            str(os.getpid()),
        ]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ} | ONE_THREAD,
                pass_fds=[theirs.fileno()],
            )
        except OSError as error:
            ours.close()
            raise _not_started() from error
    ours.settimeout(START_SECONDS)
    try:
        ready = ours.recv(len(READY)) == READY
    except OSError:
        ready = False
    if not ready:
        ours.close()
        _end(process)
        raise _not_started()
    return _Child(process, ours, os.getpid())


def _not_started() -> Unavailable:
    return Unavailable(
        "decoder_unavailable", "The decoding process does not start.", "Check memory and installation."
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let a child that has been hung up on leave by itself, or kill it."""
    try:
        process.wait(CLOSE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _read_rgb(descriptor: int, reply: Reply) -> Rgb:
    rgb = np.empty((reply.rows, reply.columns, 3), dtype=np.uint8)
    _read_into(descriptor, memoryview(rgb.data).cast("B"), 0)
    return rgb


def _read(descriptor: int, size: int, offset: int) -> bytes:
    buffer = bytearray(size)
    _read_into(descriptor, memoryview(buffer), offset)
    return bytes(buffer)


def _read_into(descriptor: int, buffer: memoryview, offset: int) -> None:
    while buffer:
        count = os.preadv(descriptor, [buffer], offset)
        if count == 0:
            raise Refused("damaged_pixels", "The decoded picture is incomplete.", "Send the object again.")
        buffer, offset = buffer[count:], offset + count
