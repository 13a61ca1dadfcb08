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
USER_INFORMATION = 0x50
ITEMS = frozenset((0x10, PRESENTATION_CONTEXT, USER_INFORMATION))
USER_ITEMS = frozenset(range(0x51, 0x5A))
"""What PS3.8 section 9.3.2 and PS3.7 annex D.3.3 know."""
_ITEM = struct.Struct(">BBH")
_LENGTH = struct.Struct(">L")


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


def with_known_items(pdu: bytes) -> bytes:
    """Return an A-ASSOCIATE-RQ PDU without what this version of the standard does not know.

    Items of unrecognized types shall be ignored and skipped (PS3.8 section 9.3.1); pynetdicom stumbles over
    them. Where lengths do not fit the PDU is returned as it is.
    """
    encoded = pdu[FIXED_BYTES:]
    kept = _kept(encoded, ITEMS)
    if kept is None or kept == encoded:
        return pdu
    fixed = pdu[2 + _LENGTH.size : FIXED_BYTES]
    return pdu[:2] + _LENGTH.pack(len(fixed) + len(kept)) + fixed + kept


def _kept(encoded: bytes, known: frozenset[int]) -> bytes | None:
    """Return the items of known types, written anew; None where lengths do not fit."""
    kept = b""
    end = 0
    for kind, body in _items(encoded):
        end += _ITEM.size + _ITEM.unpack_from(encoded, end)[2]
        inner = _kept(body, USER_ITEMS) if kind == USER_INFORMATION else body
        if inner is None:
            return None
        if kind in known:
            kept += _ITEM.pack(kind, 0, len(inner)) + inner
    return kept if end == len(encoded) else None


def _items(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type, value) of items, as far as their lengths fit."""
    position = 0
    while position + _ITEM.size <= len(encoded):
        kind, _, length = _ITEM.unpack_from(encoded, position)
        position += _ITEM.size
        yield kind, encoded[position : position + length]
        position += length
