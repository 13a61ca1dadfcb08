"""What the decoders get: how an input becomes a file, what it starts from and how it is changed."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import streams
from fuzz_datasets import deflated, elements_of
from pdus import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, explicit_element
from streams import COLUMNS, ROWS, Mutate

from cds_plugin.errors import Refused
from cds_plugin.photograph.codestream import read_frame
from cds_plugin.photograph.exchange import Kind, Request

MAX_PIXELS = 512 * 512
"""What a picture may have here: small, so that cases are quick."""
JPEG = tuple(b"1.2.840.10008.1.2.4." + each for each in (b"50", b"51"))
LOSSLESS = tuple(b"1.2.840.10008.1.2.4." + each for each in (b"57", b"70"))
LS = tuple(b"1.2.840.10008.1.2.4." + each for each in (b"80", b"81"))
WAVELET = tuple(b"1.2.840.10008.1.2.4." + each for each in (b"90", b"91", b"201", b"202", b"203"))
RLE = (b"1.2.840.10008.1.2.5",)
DEFLATED = b"1.2.840.10008.1.2.1.99"
NATIVE = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED)
COLOURS = (b"RGB ", b"YBR_FULL", b"YBR_FULL_422", b"YBR_RCT ", b"PALETTE COLOR ")
FOLLOWS = 0x80
"""A bit of the first byte: the header promises what the stream claims, whatever that is."""
REPEATS = 0x40
"""A bit of the first byte: every sequence has its content this many times, which no input could hold."""
TIMES, REPEATED_BYTES = 40, 2**18
UNDEFINED = 0xFFFFFFFF
Elements = dict[int, tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Form:
    """One decoder's inputs."""

    about: str
    file: Callable[[bytes], tuple[Request, bytes]]
    seeds: Callable[[], Iterator[bytes]]
    changed: Callable[[bytes, random.Random, Mutate], bytes]
    """Changes an input behind its first byte."""

    def mutated(self, data: bytes, longest: int, seed: int, mutate: Mutate) -> bytes:
        """Return an input changed in one place."""
        dice = random.Random(seed)
        how, body = data[:1] or b"\0", data[1:]
        if dice.random() < 0.07:
            return (bytes((dice.randrange(256),)) + body)[:longest]
        return (how + self.changed(body, dice, mutate))[:longest]


def header(rows: int = ROWS, columns: int = COLUMNS, colour: bytes = b"RGB ", frames: int = 1) -> Elements:
    """Return the elements of a photograph's header; there is nothing of a patient in it."""
    samples = 1 if colour.startswith(b"PALETTE") else 3
    words = {
        0x00280002: samples,
        0x00280006: 0,
        0x00280010: rows,
        0x00280011: columns,
        0x00280100: 8,
        0x00280101: 8,
        0x00280102: 7,
        0x00280103: 0,
    }
    found: Elements = {tag: (b"US", struct.pack("<H", value)) for tag, value in words.items()}
    found |= {tag: (b"UI", b"1.2.3\0") for tag in (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)}
    found[0x00280004] = b"CS", colour
    if frames != 1:
        found[0x00280008] = b"IS", str(frames).encode().ljust(2)
    if samples == 1:
        for number in range(3):
            found[0x00281101 + number] = b"US", struct.pack("<HHH", 256, 0, 8)
            found[0x00281201 + number] = b"OW", bytes(range(256))
    return found


def part_10(syntax: bytes, data_set: bytes) -> bytes:
    """Return a file whose data set is encoded already."""
    meta = explicit_element(0x00020010, b"UI", syntax + b"\0" * (len(syntax) % 2))
    length = explicit_element(0x00020000, b"UL", struct.pack("<L", len(meta)))
    return b"\0" * 128 + b"DICM" + length + meta + data_set


def encoded(elements: Elements, syntax: bytes = EXPLICIT_LITTLE) -> bytes:
    """Return a data set in the encoding of its transfer syntax; big endian turns words round."""
    if syntax == DEFLATED:
        return deflated(encoded(elements))
    little, found = syntax != EXPLICIT_BIG, b""
    for tag, (vr, value) in sorted(elements.items()):
        if syntax == IMPLICIT_LITTLE:
            found += struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value
        elif little:
            found += explicit_element(tag, vr, value)
        else:
            found += _big_element(tag, vr, value)
    return found


def _big_element(tag: int, vr: bytes, value: bytes) -> bytes:
    if vr in (b"US", b"OW"):
        value = b"".join(value[at : at + 2][::-1] for at in range(0, len(value), 2))
    wide = vr in (b"OB", b"OV", b"OW", b"SQ", b"UN", b"UT")
    length = struct.pack(">HL", 0, len(value)) if wide else struct.pack(">H", len(value) & 0xFFFF)
    return struct.pack(">HH", tag >> 16, tag & 0xFFFF) + vr + length + value


def encapsulated(*fragments: bytes) -> bytes:
    """Return Pixel Data of an empty offset table and these fragments (PS3.5 A.4)."""
    items = b"".join(
        struct.pack("<HHL", 0xFFFE, 0xE000, len(each) + len(each) % 2) + each + b"\0" * (len(each) % 2)
        for each in (b"", *fragments)
    )
    return items + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


def _compressed(syntaxes: tuple[bytes, ...], data: bytes) -> tuple[Request, bytes]:
    """Return a file whose one frame is the input; its first byte says syntax, colour and whose size."""
    how, stream = (data[0], data[1:]) if data else (0, b"")
    syntax = syntaxes[how % len(syntaxes)]
    colour = COLOURS[how // 8 % len(COLOURS)]
    rows, columns = _claimed(stream) if how & FOLLOWS else (ROWS, COLUMNS)
    pixels = explicit_element(0x7FE00010, b"OB", encapsulated(stream), UNDEFINED)
    return Request(Kind.DICOM, MAX_PIXELS), part_10(syntax, encoded(header(rows, columns, colour)) + pixels)


def _claimed(stream: bytes) -> tuple[int, int]:
    """Return the size that a stream claims, as far as a header can promise it."""
    start = stream.find(b"\xff\x4f\xff\x51")
    if start >= 0 and len(stream) >= start + 24:
        right, bottom, left, top = struct.unpack_from(">LLLL", stream, start + 8)
        return (bottom - top) & 0xFFFF, (right - left) & 0xFFFF
    try:
        frame = read_frame(stream)
    except Refused:
        return ROWS, COLUMNS
    return frame.rows, frame.columns


def _wavelet_changed(stream: bytes, dice: random.Random, mutate: Mutate) -> bytes:
    """Change one marker segment of the codestream, inside of what boxes there may be."""
    start = max(stream.find(b"\xff\x4f\xff\x51"), 0)
    if dice.random() < 0.1:
        start = 0
    return stream[:start] + streams.changed_segments(stream[start:], dice, mutate, WAVELET_SEGMENTS)


WAVELET_SEGMENTS = tuple(
    struct.pack(">HH", marker, len(body) + 2) + body
    for marker, body in (
        (0xFF53, b"\0\0\1\4\4\0\0"),
        (0xFF5D, b"\1\0\x40" + b"\x48" * 16),
        (0xFF5E, b"\0\0\7"),
        (0xFF5F, b"\0\0\0\1\1\1\0"),
        (0xFF50, struct.pack(">LH", 0x20000, 8)),
        (0xFF60, b"\0\0\1\2"),
        (0xFF64, b"\0\1Drawn"),
    )
)
"""COC, QCC, RGN, POC, CAP, PPM and COM."""


def _native(data: bytes) -> tuple[Request, bytes]:
    """Return a file of the elements of an input, in the encoding that its first byte says."""
    how, body = (data[0], data[1:]) if data else (0, b"")
    syntax = NATIVE[how % len(NATIVE)]
    elements = {tag: (vr, value) for tag, vr, value in elements_of(body)}
    if how & REPEATS:
        elements |= {tag: (vr, _often(each)) for tag, (vr, each) in elements.items() if vr in (b"SQ", b"UN")}
    data_set = body if syntax == EXPLICIT_LITTLE and how & FOLLOWS else encoded(elements, syntax)
    return Request(Kind.DICOM, MAX_PIXELS, 1 + how // 8 % 4), part_10(syntax, data_set)


def _often(content: bytes) -> bytes:
    return content * min(TIMES, REPEATED_BYTES // max(len(content), 1))


def _native_seeds() -> Iterator[bytes]:
    pixels = streams.drawn().tobytes()
    for number, colour in enumerate((b"RGB ", b"YBR_FULL", b"RGB ", b"YBR_FULL")):
        yield bytes((number,)) + _uncompressed(header(colour=colour), pixels)
    yield b"\0" + _uncompressed(header(colour=b"YBR_FULL_422"), pixels[: ROWS * COLUMNS * 2])
    planes = header() | {0x00280006: (b"US", b"\1\0")}
    yield b"\0" + _uncompressed(planes, pixels)
    for number in range(4):
        yield bytes((number,)) + _uncompressed(header(colour=b"PALETTE COLOR "), pixels[: ROWS * COLUMNS])
    wide = header(colour=b"PALETTE COLOR ")
    for table in range(3):
        wide[0x00281101 + table] = b"US", struct.pack("<HHH", 256, 0, 16)
        wide[0x00281201 + table] = b"OW", bytes(512)
    yield b"\0" + _uncompressed(wide, pixels[: ROWS * COLUMNS])
    for table in range(3):
        segmented = struct.pack("<HH6HHHH", 0, 6, *range(6), 1, 250, 0xFF00)
        del wide[0x00281201 + table]
        wide[0x00281221 + table] = b"OW", segmented
    yield b"\0" + _uncompressed(wide, pixels[: ROWS * COLUMNS])
    yield b"\x08" + _uncompressed(header(frames=2), pixels * 2)
    empty = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    for number, vr in enumerate((b"SQ", b"UN")):
        small = header() | {0x00091010: (vr, empty * 8), 0x00081140: (vr, empty * 8)}
        yield bytes((REPEATS | number,)) + _uncompressed(small, pixels)
    yield bytes((REPEATS,)) + _uncompressed(header() | {0x00081140: (b"SQ", empty * 520)}, pixels)


def _uncompressed(elements: Elements, pixels: bytes) -> bytes:
    return encoded(elements | {0x7FE00010: (b"OB", pixels)})


def _elements_changed(body: bytes, dice: random.Random, mutate: Mutate) -> bytes:
    """Change one element's value, VR or tag; the lengths stay right."""
    elements = list(elements_of(body))
    if not elements or dice.random() < 0.2:
        return mutate(body or b"\0", len(body) + 64)
    number = dice.randrange(len(elements))
    tag, vr, value = elements[number]
    choice = dice.random()
    if choice < 0.1:
        del elements[number]
        return b"".join(explicit_element(*each) for each in elements)
    if choice < 0.2:
        vr = dice.choice((b"US", b"OW", b"OB", b"UN", b"SS", b"CS", b"SQ", b"UL"))
    elif choice < 0.3:
        tag = dice.choice((0x00280008, 0x00282000, 0x00281221, 0x00281204, 0x00280003, 0x7FE00001, tag ^ 1))
    elif choice < 0.5 and vr == b"US":
        value = (
            struct.pack("<H", dice.choice((0, 1, 2, 3, 4, 8, 16, 31, 32, 255, 256, 512, 65535))) + value[2:]
        )
    else:
        value = mutate(value or b"\0", len(value) + 32)
    elements[number] = tag, vr, value
    return b"".join(explicit_element(*each) for each in sorted(elements))


def _frames(data: bytes) -> tuple[Request, bytes]:
    """Return a file of several frames: the input is its Pixel Data, items and all.

    With `FOLLOWS` it has an extended offset table, which the first item may lie about.
    """
    how, pixels = (data[0], data[1:]) if data else (0, b"")
    syntax = (JPEG[0], RLE[0], LS[0])[how % 3]
    frames = 1 + how // 4 % 5
    elements = header(colour=(b"YBR_FULL_422", b"RGB ", b"RGB ")[how % 3], frames=frames)
    if how & FOLLOWS:
        offsets, lengths = _extended_table(_items_of(pixels)[0])
        elements |= {0x7FE00001: (b"OV", offsets), 0x7FE00002: (b"OV", lengths)}
    body = encoded(elements) + explicit_element(0x7FE00010, b"OB", pixels, UNDEFINED)
    return Request(Kind.DICOM, MAX_PIXELS, 1 + how // 32 % 4), part_10(syntax, body)


def _extended_table(items: list[bytes]) -> tuple[bytes, bytes]:
    """Return offsets and lengths of the items (PS3.3 C.7.6.3.1.8), or the first item where it says some."""
    if items and len(items[0]) >= 8:
        return items[0], items[0][::-1]
    offsets, at = [], 0
    for each in items[1:]:
        offsets.append(at)
        at += 8 + len(each)
    form = f"<{len(offsets)}Q"
    return struct.pack(form, *offsets), struct.pack(form, *map(len, items[1:]))


def _frames_seeds() -> Iterator[bytes]:
    jpeg, rle, ls = next(streams.jpegs()), next(streams.run_lengths()), next(streams.jpegs_ls())
    for number, second_of_two, stream in ((0, 45, jpeg), (1, 46, rle), (2, 44, ls)):
        yield bytes((number,)) + encapsulated(stream)
        yield bytes((second_of_two,)) + encapsulated(stream, stream)
    yield b"\0" + encapsulated(jpeg[:300], jpeg[300:500], jpeg[500:])
    yield b"\x09" + _with_table(jpeg[:300], jpeg[300:], jpeg, jpeg[:100], jpeg[100:])
    yield bytes((FOLLOWS | 37,)) + encapsulated(jpeg, jpeg)


def _with_table(*fragments: bytes) -> bytes:
    """Return three frames in five fragments with a basic offset table."""
    body = encapsulated(*fragments)[8:]
    sizes = [8 + len(each) + len(each) % 2 for each in fragments]
    table = struct.pack("<LLL", 0, sizes[0] + sizes[1], sum(sizes[:3]))
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(table)) + table + body


def _items_changed(pixels: bytes, dice: random.Random, mutate: Mutate) -> bytes:
    """Change one item of encapsulated Pixel Data: its bytes, its length, its place."""
    items, rest = _items_of(pixels)
    choice = dice.random()
    if not items or choice < 0.15:
        return mutate(pixels or b"\0", len(pixels) + 64)
    number = dice.randrange(len(items))
    length = None
    if choice < 0.35:
        items.insert(dice.randrange(len(items) + 1), items[number])
    elif choice < 0.45:
        del items[number]
    elif choice < 0.55:
        length = dice.choice((0, 1, len(items[number]) + 1, 2**31, UNDEFINED))
    elif choice < 0.7:
        cut = dice.randrange(len(items[number]) + 1)
        items[number : number + 1] = [items[number][:cut], items[number][cut:]]
    elif choice < 0.85:
        items[0] = struct.pack("<L", dice.randrange(0, len(pixels), 2)) * dice.randrange(4)
    else:
        items[number] = mutate(items[number] or b"\0", len(items[number]) + 32)
    written = [struct.pack("<HHL", 0xFFFE, 0xE000, len(each)) + each for each in items]
    if length is not None:
        written[number] = written[number][:4] + struct.pack("<L", length) + written[number][8:]
    return b"".join(written) + rest


def _items_of(pixels: bytes) -> tuple[list[bytes], bytes]:
    found = []
    while len(pixels) >= 8:
        group, element, length = struct.unpack_from("<HHL", pixels)
        if (group, element) != (0xFFFE, 0xE000) or 8 + length > len(pixels):
            break
        found.append(pixels[8 : 8 + length])
        pixels = pixels[8 + length :]
    return found, pixels


def _profile(data: bytes) -> tuple[Request, bytes]:
    """Return an uncompressed photograph, or a JPEG or PNG, with the input as its ICC profile."""
    _, profile = (data[0], data[1:]) if data else (0, b"")
    elements = header() | {0x00282000: (b"OB", profile + b"\0" * (len(profile) % 2))}
    return Request(Kind.DICOM, MAX_PIXELS), part_10(
        EXPLICIT_LITTLE, _uncompressed(elements, streams.drawn().tobytes())
    )


def _picture(data: bytes) -> tuple[Request, bytes]:
    return Request(Kind.PICTURE, MAX_PIXELS), data[1:]


def _variants(found: Callable[[], Iterator[bytes]], *hows: int) -> Callable[[], Iterator[bytes]]:
    """Return seeds of each stream behind each of some first bytes."""

    def seeds() -> Iterator[bytes]:
        for stream in found():
            yield from (bytes((how,)) + stream for how in hows)

    return seeds


def _lossless() -> Iterator[bytes]:
    file = part_10(EXPLICIT_LITTLE, _uncompressed(header(), streams.drawn().tobytes()))
    yield from streams.lossless_jpegs(file)


_JPEG_CHANGED = partial(streams.changed_segments, more=streams.JPEG_SEGMENTS)
_PALETTE = 4 * 8

FORMS = {
    "jpeg": Form(
        "JPEG Baseline and Extended (Pillow, libjpeg-turbo)",
        partial(_compressed, JPEG),
        _variants(streams.jpegs, 0, 16 | 1, FOLLOWS),
        _JPEG_CHANGED,
    ),
    "jpeg-lossless": Form(
        "JPEG Lossless (GDCM)",
        partial(_compressed, LOSSLESS),
        _variants(_lossless, 0, 1 | FOLLOWS),
        _JPEG_CHANGED,
    ),
    "jpeg-ls": Form(
        "JPEG-LS (CharLS)",
        partial(_compressed, LS),
        _variants(streams.jpegs_ls, 0, 1 | FOLLOWS, _PALETTE),
        _JPEG_CHANGED,
    ),
    "jpeg-2000": Form(
        "JPEG 2000 (OpenJPEG)",
        partial(_compressed, WAVELET),
        _variants(streams.jpegs_2000, 0, 3 | FOLLOWS, _PALETTE),
        _wavelet_changed,
    ),
    "rle": Form(
        "RLE (pydicom)",
        partial(_compressed, RLE),
        _variants(streams.run_lengths, 0, _PALETTE),
        partial(streams.changed_words, head=64, size=4),
    ),
    "native": Form("uncompressed, deflated, palettes (pydicom)", _native, _native_seeds, _elements_changed),
    "frames": Form("several frames, fragments, offset tables", _frames, _frames_seeds, _items_changed),
    "icc": Form(
        "ICC profiles (LittleCMS)",
        _profile,
        _variants(streams.profiles, 0),
        partial(streams.changed_words, head=320, size=4),
    ),
    "png-files": Form("PNG files (Pillow)", _picture, _variants(streams.pngs, 0), streams.changed_chunks),
    "jpeg-files": Form("JPEG files (Pillow)", _picture, _variants(streams.jpegs, 0), _JPEG_CHANGED),
}
"""One for each decoder that the product uses."""
