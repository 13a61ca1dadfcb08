"""Which fragment of a message may follow which (PS3.8 annex E); pynetdicom does not ask. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

IS_COMMAND = 0x01
IS_LAST = 0x02
"""Bits of the message control header (PS3.8 section E.2)."""
N_EVENT_REPORT_RQ = 0x0100
COMMAND_FIELD = 0x0100
_ELEMENT = struct.Struct("<HHL")


@dataclass(slots=True)
class MessageOrder:
    """The message that is arriving: whose context it has, and whether its command is complete."""

    context: int | None = None
    command_is_complete: bool = False

    def problem(self, context: int, data: bytes) -> str | None:
        """Return why a fragment cannot be the next one, or None and note it."""
        if not data:
            return "a fragment without a message control header"
        if self.context not in (None, context):
            return "a message in two presentation contexts"
        if data[0] & IS_COMMAND and self.command_is_complete:
            return "a second command before the data set"
        if not data[0] & IS_COMMAND and not self.command_is_complete:
            return "a data set without its command"
        self.context = context
        self.command_is_complete |= bool(data[0] & IS_LAST)
        return None


def command_field_of(command_set: bytes) -> int | None:
    """Return (0000,0100) of an encoded command set (implicit VR little endian), or None."""
    position = 0
    while position + _ELEMENT.size <= len(command_set):
        _, element, length = _ELEMENT.unpack_from(command_set, position)
        position += _ELEMENT.size
        if element == COMMAND_FIELD and length == 2:
            return int.from_bytes(command_set[position : position + 2], "little")
        position += length
    return None
