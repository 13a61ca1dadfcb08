"""What a sender says, as bytes, right or wrong: PDUs (PS3.8 section 9.3) and messages (PS3.7)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
VERIFICATION = b"1.2.840.10008.1.1"
PUSH_MODEL = b"1.2.840.10008.1.20.1"
DERMOSCOPIC = b"1.2.840.10008.5.1.4.1.1.77.1.7"
IMPLICIT_LITTLE = b"1.2.840.10008.1.2"
EXPLICIT_LITTLE = b"1.2.840.10008.1.2.1"
EXPLICIT_BIG = b"1.2.840.10008.1.2.2"
DEFLATED = b"1.2.840.10008.1.2.1.99"
JPEG_BASELINE = b"1.2.840.10008.1.2.4.50"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
IS_COMMAND, IS_LAST = 1, 2
"""The bits of a message control header (PS3.8 annex E.2)."""
NO_DATA_SET = 0x0101
C_STORE_RQ, C_FIND_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0020, 0x0030, 0x0FFF
N_EVENT_REPORT_RQ, N_GET_RQ, N_SET_RQ, N_ACTION_RQ, N_CREATE_RQ, N_DELETE_RQ = range(0x0100, 0x0151, 0x10)
RESPONSE = 0x8000
PDU_HEAD = struct.Struct(">BBL")

COMMAND_GROUP_LENGTH, AFFECTED_SOP_CLASS, REQUESTED_SOP_CLASS = 0x0000, 0x0002, 0x0003
COMMAND_FIELD, MESSAGE_ID, RESPONDED_TO, PRIORITY = 0x0100, 0x0110, 0x0120, 0x0700
DATA_SET_TYPE, STATUS, AFFECTED_SOP_INSTANCE, REQUESTED_SOP_INSTANCE = 0x0800, 0x0900, 0x1000, 0x1001
EVENT_TYPE, ACTION_TYPE = 0x1002, 0x1008
Command = Mapping[int, bytes | int]


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    """Return a PDU; `length` may lie."""
    return PDU_HEAD.pack(kind, 0, len(body) if length is None else length) + body


def item(kind: int, body: bytes, length: int | None = None) -> bytes:
    """Return an item or sub-item of an association request; `length` may lie."""
    return struct.pack(">BBH", kind, 0, len(body) if length is None else length) + body


def context(number: int, abstract: bytes, *transfer: bytes) -> bytes:
    """Return a presentation context item."""
    inner = item(0x30, abstract) + b"".join(item(0x40, each) for each in transfer)
    return item(0x20, bytes((number, 0, 0, 0)) + inner)


def user_information(*more: bytes, maximum: int = 16384) -> bytes:
    """Return a user information item: maximum length, implementation, then `more` sub-items."""
    return item(0x50, item(0x51, struct.pack(">L", maximum)) + item(0x52, b"1.2.3.4") + b"".join(more))


CONTEXTS = (
    context(1, VERIFICATION, IMPLICIT_LITTLE),
    context(3, DERMOSCOPIC, EXPLICIT_LITTLE),
    context(5, DERMOSCOPIC, IMPLICIT_LITTLE),
    context(7, DERMOSCOPIC, DEFLATED),
    context(9, DERMOSCOPIC, JPEG_BASELINE),
    context(11, DERMOSCOPIC, EXPLICIT_BIG),
    context(13, PUSH_MODEL, IMPLICIT_LITTLE),
)
"""What most scripts ask for: C-ECHO, photographs in five transfer syntaxes, storage commitment."""


def associate_rq(
    contexts: Sequence[bytes] = CONTEXTS,
    *,
    called: bytes = b"CDS",
    calling: bytes = b"STRANGER",
    user: bytes | None = None,
    application: bytes = APPLICATION_CONTEXT,
) -> bytes:
    """Return an A-ASSOCIATE-RQ."""
    titles = called.ljust(16)[:16] + calling.ljust(16)[:16]
    items = item(0x10, application) + b"".join(contexts) + (user_information() if user is None else user)
    return pdu(ASSOCIATE_RQ, struct.pack(">HH", 1, 0) + titles + b"\0" * 32 + items)


def pdv(number: int, control: int, data: bytes, length: int | None = None) -> bytes:
    """Return a presentation data value item; `length` may lie."""
    return struct.pack(">LBB", len(data) + 2 if length is None else length, number, control) + data


def p_data(*pdvs: bytes) -> bytes:
    """Return a P-DATA-TF PDU."""
    return pdu(P_DATA_TF, b"".join(pdvs))


def release() -> bytes:
    return pdu(RELEASE_RQ, b"\0" * 4)


def abort(source: int = 0, reason: int = 0) -> bytes:
    return pdu(ABORT, bytes((0, 0, source, reason)))


def command_set(elements: Command, group_length: int | None = None) -> bytes:
    """Return a command set; whole numbers are written as US, the group length may lie."""
    encoded = b"".join(_command_element(number, elements[number]) for number in sorted(elements))
    length = len(encoded) if group_length is None else group_length
    return struct.pack("<HHLL", 0, COMMAND_GROUP_LENGTH, 4, length) + encoded


def _command_element(number: int, value: bytes | int) -> bytes:
    data = struct.pack("<H", value) if isinstance(value, int) else value + b"\0" * (len(value) % 2)
    return struct.pack("<HHL", 0, number, len(data)) + data


def echo_command(message: int = 1) -> dict[int, bytes | int]:
    return {
        AFFECTED_SOP_CLASS: VERIFICATION,
        COMMAND_FIELD: C_ECHO_RQ,
        MESSAGE_ID: message,
        DATA_SET_TYPE: NO_DATA_SET,
    }


def store_command(instance: bytes, message: int = 1) -> dict[int, bytes | int]:
    return {
        AFFECTED_SOP_CLASS: DERMOSCOPIC,
        COMMAND_FIELD: C_STORE_RQ,
        MESSAGE_ID: message,
        PRIORITY: 0,
        DATA_SET_TYPE: 1,
        AFFECTED_SOP_INSTANCE: instance,
    }


def echo(number: int = 1, message: int = 1) -> bytes:
    """Return a whole C-ECHO-RQ."""
    return p_data(pdv(number, IS_COMMAND | IS_LAST, command_set(echo_command(message))))


def commit(number: int, information: bytes, *, message: int = 1, fragment: int = 8192) -> bytes:
    """Return a whole N-ACTION-RQ of storage commitment (PS3.4 annex J.3.2)."""
    command = {
        REQUESTED_SOP_CLASS: PUSH_MODEL,
        COMMAND_FIELD: N_ACTION_RQ,
        MESSAGE_ID: message,
        DATA_SET_TYPE: 1,
        REQUESTED_SOP_INSTANCE: PUSH_MODEL + b".1",
        ACTION_TYPE: 1,
    }
    return p_data(pdv(number, IS_COMMAND | IS_LAST, command_set(command))) + _fragments(
        number, information, fragment
    )


def store(number: int, instance: bytes, data_set: bytes, *, message: int = 1, fragment: int = 8192) -> bytes:
    """Return a whole C-STORE-RQ, its data set in fragments."""
    said = p_data(pdv(number, IS_COMMAND | IS_LAST, command_set(store_command(instance, message))))
    return said + _fragments(number, data_set, fragment)


def _fragments(number: int, data_set: bytes, size: int) -> bytes:
    starts = range(0, len(data_set), size) or range(1)
    return b"".join(
        p_data(pdv(number, IS_LAST if start + size >= len(data_set) else 0, data_set[start : start + size]))
        for start in starts
    )


def explicit_element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Return an element in explicit VR little endian; `length` may lie."""
    size = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    wide = vr in (b"OB", b"OV", b"OW", b"SQ", b"UN", b"UT")
    return head + (struct.pack("<HL", 0, size) if wide else struct.pack("<H", size & 0xFFFF)) + value


def photograph(instance: bytes, *, study: bytes = b"1.2.3", pixels: int = 48) -> bytes:
    """Return the data set of a small photograph in explicit VR little endian."""
    texts = {
        0x00080016: (b"UI", DERMOSCOPIC),
        0x00080018: (b"UI", instance),
        0x00100010: (b"PN", b"Test^Patient"),
        0x00100020: (b"LO", b"P1"),
        0x0020000D: (b"UI", study),
        0x0020000E: (b"UI", study + b".1"),
    }
    padded = (
        explicit_element(tag, vr, value + (b"\0" if vr == b"UI" else b" ") * (len(value) % 2))
        for tag, (vr, value) in texts.items()
    )
    return b"".join(padded) + explicit_element(0x7FE00010, b"OB", b"\x80" * pixels)


def implicit(values: Mapping[int, bytes]) -> bytes:
    """Return elements in implicit VR little endian."""
    return b"".join(
        struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value
        for tag, value in sorted(values.items())
    )


def references(*instances: bytes, transaction: bytes = b"1.2.9\0") -> bytes:
    """Return the action information of a storage commitment request."""
    items = b"".join(
        struct.pack("<HHL", 0xFFFE, 0xE000, len(one)) + one
        for one in (implicit({0x00081150: DERMOSCOPIC, 0x00081155: each}) for each in instances)
    )
    return implicit({0x00081195: transaction, 0x00081199: items})


@dataclass(frozen=True, slots=True)
class Answers:
    """What came back: the kinds of PDUs in order, and the command set of each answered message."""

    kinds: tuple[int, ...]
    commands: tuple[dict[int, bytes], ...]
    rest: bytes
    aborts: tuple[tuple[int, int], ...] = ()

    @property
    def statuses(self) -> list[int]:
        return [number(each, STATUS) for each in self.commands]

    @property
    def stored(self) -> list[str]:
        """Return the SOP Instance UIDs whose C-STORE was answered with Success."""
        return [
            each[AFFECTED_SOP_INSTANCE].rstrip(b"\0 ").decode("ascii", "replace")
            for each in self.commands
            if number(each, COMMAND_FIELD) == C_STORE_RQ | RESPONSE
            and number(each, STATUS) == 0
            and AFFECTED_SOP_INSTANCE in each
        ]


def answers_in(received: bytes) -> Answers:
    """Return what a listener said; `rest` is what is no whole PDU."""
    kinds, commands, aborts, pending = [], [], [], b""
    pdus, rest = split(received)
    for kind, body in pdus:
        kinds.append(kind)
        if kind == ABORT and len(body) == 4:
            aborts.append((body[2], body[3]))
        for _, control, data in pdvs_of(body) if kind == P_DATA_TF else ():
            pending += data
            if control & IS_LAST:
                commands.append(command_elements(pending) if control & IS_COMMAND else {})
                pending = b""
    return Answers(tuple(kinds), tuple(commands), rest, tuple(aborts))


def split(stream: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the whole PDUs of a stream as (kind, body), and the rest."""
    found = []
    while len(stream) >= PDU_HEAD.size:
        kind, _, length = PDU_HEAD.unpack_from(stream)
        end = PDU_HEAD.size + length
        if end > len(stream):
            break
        found.append((kind, stream[PDU_HEAD.size : end]))
        stream = stream[end:]
    return found, stream


def pdvs_of(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (context, control header, data) of each presentation data value of a P-DATA-TF."""
    while len(body) >= 6:
        length, number, control = struct.unpack_from(">LBB", body)
        yield number, control, body[6 : 4 + length]
        body = body[max(4 + length, 6) :]


def command_elements(encoded: bytes) -> dict[int, bytes]:
    """Return the values of a command set by element number."""
    found = {}
    while len(encoded) >= 8:
        _, element, length = struct.unpack_from("<HHL", encoded)
        found[element] = encoded[8 : 8 + length]
        encoded = encoded[8 + length :]
    return found


def number(command: Mapping[int, bytes], element: int) -> int:
    """Return a US of a command set, or -1."""
    value = command.get(element, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else -1
