"""Target `datasets`: an object's bytes through the real reception, in every encoding."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from functools import cache

import structlog
from invariants import Breach, Watch, watched
from pdus import (
    DEFLATED,
    DERMOSCOPIC,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    JPEG_BASELINE,
    explicit_element,
    implicit,
    photograph,
)
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from pynetdicom.dsutils import create_file_meta
from strangers import SMALL, a_folder, a_reception, a_ward

from cds_plugin.receive import header
from cds_plugin.receive.answers import Offered, Status
from cds_plugin.receive.associations import OpenAssociation
from cds_plugin.receive.header import PATIENT_ID_CHARACTERS, Header, read_received
from cds_plugin.receive.part10 import offered_from_file
from cds_plugin.receive.spool import sha256_of
from cds_plugin.receive.structure import Unparsable

SYNTAXES = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, JPEG_BASELINE, DEFLATED)
DEFLATE_HERE = len(SYNTAXES)
WHOLE_FILE = DEFLATE_HERE + 1
WAYS = WHOLE_FILE + 1
"""An input's first byte modulo this: a transfer syntax, deflated by us, or a whole file as STOW brings it."""
REPAIRED = 0x80
"""A bit of the first byte: the object comes from a sender whose quoted values a rule repairs."""
INSTANCE = b"1.2.3.4"
KEPT_ASIDE = frozenset({Status.DATA_SET_DOES_NOT_MATCH, Status.CANNOT_UNDERSTAND})
LAST_INSTANCE = "SELECT id, path FROM instances ORDER BY id DESC LIMIT 1"
"""Asked after every case, so without the layers above the database."""
BATCH = 5000
"""Objects between two fresh folders: neither disk nor database grows with the number of cases."""
BYTES = 16 * 1024
Mutate = Callable[[bytes, int], bytes]


class Datasets:
    """One reception for many objects; a context manager."""

    longest = BYTES

    def __enter__(self) -> Datasets:
        self._outer = ExitStack()
        self._watch: Watch = self._outer.enter_context(watched())
        self._inner = ExitStack()
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._inner.close()
        self._outer.close()

    def one(self, data: bytes) -> None:
        """Hand an object in and check its answer against what is kept of it."""
        if self._seen >= BATCH:
            self._inner.close()
            self._begin()
        self._seen += 1
        offered = self._offered(data)
        digest = sha256_of(offered.path)
        self._check_header(offered)
        status, reason = self._reception.receive(offered)
        self._check(status, reason, digest)
        self._watch.check()

    def settled(self) -> None:
        """Nothing here settles later."""

    def _begin(self) -> None:
        self._ward = a_ward(self._inner.enter_context(a_folder()))
        self._inner.callback(self._ward.engine.dispose)
        self._reception, self._incoming = self._inner.enter_context(a_reception(self._ward))
        now = datetime.now(UTC)
        self._senders = [
            OpenAssociation(letter * 32, title, "127.0.0.1", now, now)
            for letter, title in (("a", "STRANGER"), ("b", "QUOTING"))
        ]
        self._seen = self._stored = 0

    def _offered(self, data: bytes) -> Offered:
        way, body = (data[0] % REPAIRED % WAYS, data[1:]) if data else (0, b"")
        path = self._incoming / "object.dcm"
        sender = self._senders[bool(data and data[0] & REPAIRED)]
        if way == WHOLE_FILE:
            path.write_bytes(body)
            return offered_from_file(path, sender)
        if way == DEFLATE_HERE:
            body = deflated(body)
        syntax = DEFLATED if way == DEFLATE_HERE else SYNTAXES[way]
        path.write_bytes(_head(syntax) + body)
        return Offered(path, DERMOSCOPIC.decode(), INSTANCE.decode(), syntax.decode(), sender)

    def _check_header(self, offered: Offered) -> None:
        """A header is read, the short way as by pydicom, or unparsable; reading leaves nothing behind."""
        if not offered.transfer_syntax_uid:
            return
        found = _header_of(offered)
        with _without_the_short_way():
            by_pydicom = _header_of(offered)
        if found != by_pydicom:
            raise Breach("the short way and pydicom read different headers")
        if list(self._incoming.iterdir()) != [offered.path]:
            raise Breach("reading a header leaves files in incoming")
        if found and max(len(found.patient_id), len(found.issuer_of_patient_id)) > PATIENT_ID_CHARACTERS:
            raise Breach("a patient's identifier is longer than the database takes")

    def _rows(self) -> tuple[int, str]:
        """Return how many instances there are, and the path of the last one."""
        with closing(self._ward.engine.raw_connection()) as connection:
            cursor = connection.cursor()
            cursor.execute(LAST_INSTANCE)
            return cursor.fetchone() or (0, "")

    def _check(self, status: Status, reason: str, digest: str) -> None:
        """Success means a row and a file, a refusal means quarantine; incoming is empty."""
        if list(self._incoming.iterdir()):
            raise Breach(f"left in incoming after {status!r}")
        before, (self._stored, path) = self._stored, self._rows()
        if status is Status.SUCCESS:
            if not path or not (self._ward.directory / path).is_file():
                raise Breach("acknowledged and not kept")
        elif status is Status.OUT_OF_RESOURCES and reason.startswith("storage failed"):
            raise Breach(f"an object made the storage fail: {reason}")
        elif self._stored != before:
            raise Breach(f"{status!r} and yet stored")
        elif status in KEPT_ASIDE and not (self._ward.directory / "quarantine" / f"{digest}.dcm").is_file():
            raise Breach(f"{status!r} and not in quarantine")


def _header_of(offered: Offered) -> Header | None:
    try:
        return read_received(offered.path, offered.transfer_syntax_uid, SMALL.inflated_bytes)
    except Unparsable:
        return None


@contextmanager
def _without_the_short_way() -> Iterator[None]:
    before = header.plain_texts
    header.plain_texts = lambda *_: None
    try:
        yield
    finally:
        header.plain_texts = before


@cache
def _head(syntax: bytes) -> bytes:
    """Return what the listener writes before a data set."""
    file = io.BytesIO()
    file.write(b"\0" * 128 + b"DICM")
    meta = create_file_meta(
        sop_class_uid=UID(DERMOSCOPIC.decode()),
        sop_instance_uid=UID(INSTANCE.decode()),
        transfer_syntax=UID(syntax.decode()),
    )
    write_file_meta_info(file, meta)
    return file.getvalue()


def deflated(body: bytes) -> bytes:
    press = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return press.compress(body) + press.flush()


def seeds() -> Iterator[bytes]:
    """Yield one whole object for each way in, and the structures that decide how deep parsing goes."""
    whole = photograph(INSTANCE)
    yield b"\1" + whole
    yield bytes((DEFLATE_HERE,)) + whole
    yield bytes((SYNTAXES.index(DEFLATED),)) + deflated(whole)
    yield bytes((SYNTAXES.index(EXPLICIT_BIG),)) + _big_endian(whole)
    yield b"\0" + implicit(
        {
            0x00080016: DERMOSCOPIC,
            0x00080018: INSTANCE + b"\0",
            0x0020000D: b"1.2.3\0",
            0x0020000E: b"1.2.3.1\0",
            0x7FE00010: b"\x80" * 16,
        }
    )
    sequences = _sequences()
    cut = whole.index(explicit_element(0x00100010, b"PN", b"Test^Patient"))
    yield from (b"\1" + whole[:cut] + each + whole[cut:] for each in sequences)
    yield bytes((SYNTAXES.index(JPEG_BASELINE),)) + whole[:-60] + _encapsulated()
    yield bytes((WHOLE_FILE,)) + a_file(whole)
    yield bytes((DEFLATE_HERE,)) + whole + b"\0" * 15000
    yield bytes((REPAIRED | 1,)) + explicit_element(0x00080005, b"CS", b'"ISO_IR 100"') + _quoted(whole)
    yield b"\1" + explicit_element(0x00080005, b"SQ", b"\0\0\0\0\0") + whole
    yield b"\1" + explicit_element(0x00080005, b"CS", b"ISO 2022 IR 87\\ISO 2022 IR 13 ") + whole


def _sequences() -> list[bytes]:
    item_head, item_end, end = (
        struct.pack("<HHL", 0xFFFE, *each) for each in ((0xE000, 0xFFFFFFFF), (0xE00D, 0), (0xE0DD, 0))
    )
    code = explicit_element(0x00080100, b"SH", b"T-01")
    undefined = explicit_element(0x00082218, b"SQ", item_head + code + item_end + end, 0xFFFFFFFF)
    defined = explicit_element(0x00082218, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, len(code)) + code)
    unknown = explicit_element(
        0x00091010, b"UN", item_head + implicit({0x00080100: b"T-01"}) + item_end + end, 0xFFFFFFFF
    )
    deep = b""
    for _ in range(20):
        deep = explicit_element(0x00082218, b"SQ", item_head + deep + item_end + end, 0xFFFFFFFF)
    equipment = explicit_element(
        0x0018A001, b"SQ", item_head + explicit_element(0x00080070, b"LO", b"X ") + item_end + end, 0xFFFFFFFF
    )
    return [undefined, defined, unknown, deep, equipment]


def _encapsulated() -> bytes:
    fragments = (
        struct.pack("<HHL", 0xFFFE, 0xE000, 0) + struct.pack("<HHL", 0xFFFE, 0xE000, 4) + b"\xff\xd8\xff\xd9"
    )
    return explicit_element(0x7FE00010, b"OB", fragments + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0), 0xFFFFFFFF)


def a_file(data_set: bytes) -> bytes:
    """Return a data set in explicit VR little endian as a file."""
    return b"\0" * 128 + b"DICM" + _meta_group() + data_set


def _meta_group() -> bytes:
    elements = explicit_element(0x00020002, b"UI", DERMOSCOPIC) + explicit_element(
        0x00020003, b"UI", INSTANCE + b"\0"
    )
    elements += explicit_element(0x00020010, b"UI", EXPLICIT_LITTLE + b"\0")
    return explicit_element(0x00020000, b"UL", struct.pack("<L", len(elements))) + elements


def _big_endian(explicit: bytes) -> bytes:
    """Return elements of defined length in explicit VR big endian."""
    found = b""
    for tag, vr, value in elements_of(explicit):
        wide = vr == b"OB"
        length = struct.pack(">HL", 0, len(value)) if wide else struct.pack(">H", len(value))
        found += struct.pack(">HH", tag >> 16, tag & 0xFFFF) + vr + length + value
    return found


def _quoted(explicit: bytes) -> bytes:
    """Return elements whose texts stand in quotes, as some exports write them."""
    return b"".join(
        explicit_element(tag, vr, value if vr == b"OB" else _even(b'"' + value.strip(b"\0 ") + b'"'))
        for tag, vr, value in elements_of(explicit)
    )


def _even(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)


def elements_of(explicit: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield (tag, VR, value) of elements in explicit VR little endian, as far as their lengths are right."""
    while len(explicit) >= 8:
        group, element, vr, length = struct.unpack_from("<HH2sH", explicit)
        start = 8
        if vr in (b"OB", b"OV", b"OW", b"SQ", b"UN", b"UT") and len(explicit) >= 12:
            start, length = 12, struct.unpack_from("<L", explicit, 8)[0]
        if start + length > len(explicit):
            return
        yield group << 16 | element, vr, explicit[start : start + length]
        explicit = explicit[start + length :]


def mutated(data: bytes, longest: int, seed: int, mutate: Mutate) -> bytes:
    """Return an object changed in one place: a value with its length made right, or just bytes."""
    dice = random.Random(seed)
    way, body = data[:1] or b"\1", data[1:]
    if dice.random() < 0.1:
        return (bytes((dice.randrange(WAYS) | dice.choice((0, REPAIRED)),)) + body)[:longest]
    elements = list(elements_of(body)) if way[0] % REPAIRED % WAYS in (1, DEFLATE_HERE) else []
    if not elements or dice.random() < 0.5:
        return way + mutate(body or b"\0", longest - 1)
    whole = sum(len(explicit_element(*each)) for each in elements)
    number = dice.randrange(len(elements))
    tag, vr, value = elements[number]
    choice = dice.random()
    if choice < 0.15:
        elements.insert(dice.randrange(len(elements) + 1), elements[number])
    elif choice < 0.3:
        vr = dice.choice((b"UI", b"LO", b"PN", b"SQ", b"UN", b"OB", b"UT", b"DS", b"US", b"FD", b"AT", b"IS"))
    elif choice < 0.4:
        tag = dice.choice(
            (0x00080005, 0x00080008, 0x00080016, 0x00100020, 0x00280301, 0x0018A001, 0x00181002)
        )
    else:
        value = mutate(value or b"\0", len(value) + 64)
    elements[number] = tag, vr, value
    return (way + b"".join(explicit_element(*each) for each in elements) + body[whole:])[:longest]


structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
