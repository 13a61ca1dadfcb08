"""What an association request may ask for (PS3.8 section 9.3.2), before anything is built of it. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from cds_plugin.receive.bounds import CONTEXTS, REQUEST_BYTES

FIXED_BYTES = 74
"""The head of the PDU and its fixed fields."""
PRESENTATION_CONTEXT = 0x20
ABSTRACT_SYNTAX = 0x30
TRANSFER_SYNTAX = 0x40
_ITEM = struct.Struct(">BBH")


def request_problem(pdu: bytes) -> str | None:
    """Return why a whole A-ASSOCIATE-RQ PDU is none that can be answered, or None."""
    if len(pdu) > REQUEST_BYTES:
        return "a request of too many bytes"
    contexts = [body for kind, body in _items(pdu[FIXED_BYTES:]) if kind == PRESENTATION_CONTEXT]
    if len(contexts) > CONTEXTS:
        return "too many presentation contexts"
    if len({body[:1] for body in contexts}) < len(contexts):
        return "two presentation contexts of one number"
    for body in contexts:
        kinds = [kind for kind, _ in _items(body[4:])]
        if kinds.count(ABSTRACT_SYNTAX) != 1 or TRANSFER_SYNTAX not in kinds:
            return "a presentation context without its syntaxes"
    return None


def _items(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type, value) of items, as far as their lengths fit."""
    position = 0
    while position + _ITEM.size <= len(encoded):
        kind, _, length = _ITEM.unpack_from(encoded, position)
        position += _ITEM.size
        yield kind, encoded[position : position + length]
        position += length
