"""The child that decodes: limits on itself, then one file after another; dies with its parent.

Started as `python -m cds_plugin.photograph.child DESCRIPTOR PARENT_PID` by `cds_plugin.decoder`.
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import socket
import sys
from typing import BinaryIO

import gdcm
import numpy as np

from cds_plugin.errors import Refused
from cds_plugin.photograph.checks import check_decodable, frame_size
from cds_plugin.photograph.codecs import decode_dataset
from cds_plugin.photograph.exchange import READY, Kind, Refusal, Reply, Request, receive_request, send_answer
from cds_plugin.photograph.facts import ColourSource
from cds_plugin.photograph.header import dataset_of, header_of
from cds_plugin.photograph.pictures import decode_picture, picture_size

PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
SPARE_BYTES = 256 * 2**20
"""Address space beyond what the loaded libraries take, for everything that does not grow with the picture."""
BYTES_PER_PIXEL = 32
"""The greediest path (JPEG 2000: three 32-bit planes, their copies, the result) stays below it."""
COPIES_OF_FILE = 4
"""The file, its pixel data, the joined frame, and one to spare."""
FILE_BYTES = 2**30
"""A photograph of 120 million pixels is 360 MB uncompressed."""


def main() -> None:
    """Serve requests until the parent closes the channel."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    _be_harmless()
    channel = socket.socket(fileno=descriptor)
    own_bytes = address_space_bytes()
    channel.send(READY)
    while (received := receive_request(channel)) is not None:
        if not _serve(channel, own_bytes, *received):
            return


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(0)


def _be_harmless() -> None:
    """Leave no core with patient data, silence the libraries, outlive a Ctrl-C of the terminal."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()


def address_space_bytes() -> int:
    """Return what the loaded libraries have reserved; the limit is set above it."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()


def _serve(channel: socket.socket, own_bytes: int, request: Request, file: int, pixels: int) -> bool:
    """Answer one request; return False when this process should not be trusted with another."""
    clean = True
    try:
        answer: Reply | Refusal = decode_limited(request, own_bytes, file, pixels)
    except Refused as error:
        answer = Refusal(error.code, error.message, error.action)
    except MemoryError:
        clean = False
        answer = Refusal(
            "too_much_memory", "Decoding takes more memory than allowed.", "Send a smaller picture."
        )
    except Exception as error:  # noqa: BLE001 - the outermost loop: whatever a codec raises, the file is refused
        clean = False
        answer = Refusal(
            "damaged_pixels",
            f"The pixels cannot be decoded ({type(error).__name__}).",
            "Send the object again.",
        )
    finally:
        os.close(pixels)
    send_answer(channel, answer)
    return clean


def decode_limited(request: Request, own_bytes: int, file: int, pixels: int) -> Reply:
    """Return what was decoded of a file into `pixels`, with this process's memory limited; `file` is closed.

    Raises Refused, MemoryError, and whatever a codec raises.
    """
    with os.fdopen(file, "rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        if size > FILE_BYTES:
            raise Refused("file_too_large", f"The file has {size} bytes.", "Send a smaller picture.")
        allowance = own_bytes + SPARE_BYTES + COPIES_OF_FILE * size
        if request.kind is Kind.DICOM:
            return _decode_dicom(stream, request, allowance, pixels)
        return _decode_file(stream.read(), request.max_pixels, allowance, pixels)


def _decode_dicom(stream: BinaryIO, request: Request, allowance: int, pixels: int) -> Reply:
    header = header_of(stream)
    check_decodable(header, request.max_pixels)
    _limit(allowance + BYTES_PER_PIXEL * math.prod(frame_size(header)))
    rgb, colour = decode_dataset(dataset_of(stream, allowance), request.frame)
    _write(pixels, np.ascontiguousarray(rgb).data)
    return Reply(
        rgb.shape[0], rgb.shape[1], colour, lossy=False, profile_bytes=0, jpeg_bytes=0, jpeg_is_rgb=False
    )


def _decode_file(data: bytes, max_pixels: int, allowance: int, pixels: int) -> Reply:
    rows, columns = picture_size(data, max_pixels)
    _limit(allowance + BYTES_PER_PIXEL * rows * columns)
    picture = decode_picture(data)
    profile, jpeg = picture.icc_profile or b"", picture.jpeg or b""
    _write(pixels, np.ascontiguousarray(picture.rgb).data, profile, jpeg)
    return Reply(
        picture.rgb.shape[0],
        picture.rgb.shape[1],
        ColourSource.ASSUMED_SRGB,
        lossy=picture.lossy,
        profile_bytes=len(profile),
        jpeg_bytes=len(jpeg),
        jpeg_is_rgb=picture.jpeg_is_rgb,
    )


def _limit(address_space_bytes: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = address_space_bytes if hard == resource.RLIM_INFINITY else min(address_space_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _write(descriptor: int, *parts: memoryview | bytes) -> None:
    for part in parts:
        left = memoryview(part).cast("B")
        while left:
            left = left[os.write(descriptor, left) :]


if __name__ == "__main__":
    main()
