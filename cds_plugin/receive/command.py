"""The bytes around a C-STORE: its request read, its response and its File Meta Information written. Pure.

pynetdicom builds these with data sets and setters, a millisecond for each object. What is read here is only
the usual form of a request; whatever else a peer writes is left to pynetdicom (`store_request` says None).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

from cds_plugin.receive.answers import ERROR_COMMENT_CHARACTERS

PREAMBLE = b"\0" * 128 + b"DICM"
C_STORE_RQ = 0x0001
C_STORE_RSP = 0x8001
NO_DATA_SET = 0x0101
PRIORITIES = frozenset({0, 1, 2})
"""Medium, high, low (PS3.7 section 9.3.1.1)."""
P_DATA_TF = 0x04
WHOLE_COMMAND = 0x03
"""The message control header of a command's last fragment (PS3.8 section E.2)."""

GROUP_LENGTH = 0x0000
AFFECTED_SOP_CLASS_UID = 0x0002
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
PRIORITY = 0x0700
COMMAND_DATA_SET_TYPE = 0x0800
STATUS = 0x0900
ERROR_COMMENT = 0x0902
AFFECTED_SOP_INSTANCE_UID = 0x1000
MOVE_ORIGINATOR_AE = 0x1030
MOVE_ORIGINATOR_MESSAGE_ID = 0x1031
NUMBERS = frozenset({COMMAND_FIELD, MESSAGE_ID, PRIORITY, COMMAND_DATA_SET_TYPE, MOVE_ORIGINATOR_MESSAGE_ID})
TEXTS = frozenset({AFFECTED_SOP_CLASS_UID, AFFECTED_SOP_INSTANCE_UID, MOVE_ORIGINATOR_AE})

_HEAD = struct.Struct("<HHI")
_US = struct.Struct("<H")
_UL = struct.Struct("<I")
_USUAL_UID = re.compile(rb"[0-9.]{1,64}\0?")


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """What a C-STORE request announces (PS3.7 table 9.3-1)."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str


def store_request(command: bytes) -> StoreRequest | None:
    """Return the C-STORE request of a command set, None where it is another or not of the usual form."""
    values = _values(command)
    if values is None or not values.keys() >= REQUIRED:
        return None
    if _number(values, COMMAND_FIELD) != C_STORE_RQ or _number(values, COMMAND_DATA_SET_TYPE) == NO_DATA_SET:
        return None
    if _number(values, PRIORITY) not in PRIORITIES:
        return None
    sop_class, instance = values[AFFECTED_SOP_CLASS_UID], values[AFFECTED_SOP_INSTANCE_UID]
    if not (_USUAL_UID.fullmatch(sop_class) and _USUAL_UID.fullmatch(instance)):
        return None
    return StoreRequest(_number(values, MESSAGE_ID), _text(sop_class), _text(instance))


REQUIRED = frozenset(
    {
        AFFECTED_SOP_CLASS_UID,
        COMMAND_FIELD,
        MESSAGE_ID,
        PRIORITY,
        COMMAND_DATA_SET_TYPE,
        AFFECTED_SOP_INSTANCE_UID,
    }
)


def store_response(context_id: int, request: StoreRequest, status: int, comment: str = "") -> bytes:
    """Return the P-DATA-TF PDU that answers `request`."""
    elements = [
        (AFFECTED_SOP_CLASS_UID, _uid(request.sop_class_uid)),
        (COMMAND_FIELD, _US.pack(C_STORE_RSP)),
        (MESSAGE_ID_BEING_RESPONDED_TO, _US.pack(request.message_id)),
        (COMMAND_DATA_SET_TYPE, _US.pack(NO_DATA_SET)),
        (STATUS, _US.pack(status)),
        *([(ERROR_COMMENT, _comment(comment))] if comment else []),
        (AFFECTED_SOP_INSTANCE_UID, _uid(request.sop_instance_uid)),
    ]
    body = b"".join(_HEAD.pack(0, tag, len(value)) + value for tag, value in elements)
    command = _HEAD.pack(0, GROUP_LENGTH, 4) + _UL.pack(len(body)) + body
    return struct.pack(
        ">BBIIBB", P_DATA_TF, 0, len(command) + 6, len(command) + 2, context_id, WHOLE_COMMAND
    ) + bytes(command)


def file_head(request: StoreRequest, transfer_syntax_uid: str) -> bytes:
    """Return preamble and File Meta Information (PS3.10 section 7.1) as pynetdicom writes them."""
    elements = b"".join(
        (
            _long(0x0001, b"OB", b"\0\1"),
            _short(0x0002, b"UI", _uid(request.sop_class_uid)),
            _short(0x0003, b"UI", _uid(request.sop_instance_uid)),
            _short(0x0010, b"UI", _uid(transfer_syntax_uid)),
            _short(0x0012, b"UI", _uid(PYNETDICOM_IMPLEMENTATION_UID)),
            _short(0x0013, b"SH", _even(PYNETDICOM_IMPLEMENTATION_VERSION.encode("ascii"), b" ")),
        )
    )
    return PREAMBLE + _short(0x0000, b"UL", _UL.pack(len(elements))) + elements


def _values(command: bytes) -> dict[int, bytes] | None:
    """Return the elements of a command set, which rise; None where anything about them is unusual."""
    values: dict[int, bytes] = {}
    position, last = 0, -1
    while position < len(command):
        if position + 8 > len(command):
            return None
        group, tag, length = _HEAD.unpack_from(command, position)
        start = position + 8
        position = start + length
        if group or tag <= last or position > len(command) or not _fits(tag, length):
            return None
        values[tag] = command[start:position]
        last = tag
    return values


def _fits(tag: int, length: int) -> bool:
    if tag in NUMBERS:
        return length == 2
    return tag in TEXTS or (tag == GROUP_LENGTH and length == 4)


def _number(values: dict[int, bytes], tag: int) -> int:
    number: int = _US.unpack(values[tag])[0]
    return number


def _text(uid: bytes) -> str:
    return uid.rstrip(b"\0").decode("ascii")


def _uid(uid: str) -> bytes:
    return _even(uid.encode("ascii"), b"\0")


def _comment(text: str) -> bytes:
    return _even(text[:ERROR_COMMENT_CHARACTERS].encode("ascii", "replace"), b" ")


def _even(value: bytes, pad: bytes) -> bytes:
    return value + pad if len(value) % 2 else value


def _short(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", 0x0002, tag, vr, len(value)) + value


def _long(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sHI", 0x0002, tag, vr, 0, len(value)) + value
