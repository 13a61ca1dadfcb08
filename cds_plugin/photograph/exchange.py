"""What parent and child say to each other: one JSON message each way, file and pixels as descriptors."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

MESSAGE_BYTES = 64 * 1024
"""Any message is far shorter; bulk data goes through the descriptors."""
READY = b"ready"


class Kind(StrEnum):
    """What the file is taken for."""

    DICOM = "dicom"
    PICTURE = "picture"


@dataclass(frozen=True, slots=True)
class Request:
    """Decode the file of the first descriptor, of a DICOM object that frame, into the second."""

    kind: Kind
    max_pixels: int
    frame: int = 1


@dataclass(frozen=True, slots=True)
class Reply:
    """What lies in the second descriptor: pixels, then the ICC profile, then the kept JPEG stream."""

    rows: int
    columns: int
    colour: str
    lossy: bool
    profile_bytes: int
    jpeg_bytes: int
    jpeg_is_rgb: bool

    @property
    def pixel_bytes(self) -> int:
        """Return the bytes of uint8 RGB."""
        return self.rows * self.columns * 3


@dataclass(frozen=True, slots=True)
class Refusal:
    """The three fields of a `Refused`."""

    code: str
    message: str
    action: str


def send_request(channel: socket.socket, request: Request, file: int, pixels: int) -> None:
    """Send a request with its two descriptors."""
    socket.send_fds(channel, [json.dumps(asdict(request)).encode()], [file, pixels])


def receive_request(channel: socket.socket) -> tuple[Request, int, int] | None:
    """Return the next request and its descriptors, or None when the parent has gone."""
    message, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 2)
    if not message:
        return None
    said = json.loads(message)
    request = Request(Kind(said["kind"]), said["max_pixels"], said["frame"])
    return request, descriptors[0], descriptors[1]


def send_answer(channel: socket.socket, answer: Reply | Refusal) -> None:
    """Send what came of a request."""
    channel.send(json.dumps(asdict(answer)).encode())


def receive_answer(channel: socket.socket) -> Reply | Refusal | None:
    """Return the answer; raises TimeoutError when it takes too long.

    None: the child has died, or a codec has made it say what is no answer.
    """
    try:
        message = channel.recv(MESSAGE_BYTES)
        said: dict[str, Any] = json.loads(message)
        answer = Refusal(**said) if "code" in said else Reply(**said)
    except (ConnectionError, TypeError, ValueError):
        return None
    return answer if _is_sound(answer) else None


def _is_sound(answer: Reply | Refusal) -> bool:
    """Return whether every field is of its kind: texts, truths, and whole numbers of 0 and up."""
    kinds = {"str": str, "bool": bool, "int": int}
    for field in fields(answer):
        value = getattr(answer, field.name)
        if type(value) is not kinds[str(field.type)] or (isinstance(value, int) and value < 0):
            return False
    return True
