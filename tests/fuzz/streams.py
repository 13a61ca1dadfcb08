"""Small pictures of our own drawing in every encoding, and how an encoded stream is changed."""

from __future__ import annotations

import io
import random
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gdcm
import jpeg_ls
import numpy as np
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from PIL import Image, ImageCms
from pydicom.encaps import get_frame
from pydicom.filereader import dcmread
from pydicom.uid import VLPhotographicImageStorage

Mutate = Callable[[bytes, int], bytes]
Rgb = NDArray[np.uint8]
ROWS, COLUMNS = 34, 40
"""A little more than the smallest side that is decoded, and not square."""
SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
EXIF_TURNED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
JPEG_SEGMENTS = tuple(
    struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
    for marker, body in (
        (0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
        (0xEE, b"Adobe\0\x64\0\0\0\0\0"),
        (0xEE, b"Adobe\0\x64\0\0\0\0\2"),
        (0xE1, EXIF_TURNED),
        (0xE2, b"ICC_PROFILE\0\1\1" + b"\0" * 128),
        (0xE8, b"mrfx\0\2\0\1\0\0\0\0"),
        (0xDD, b"\0\4"),
        (0xDC, struct.pack(">H", ROWS)),
        (0xFE, b"Drawn^Person"),
        (0xC4, b"\0" + bytes(16)),
        (0xDB, b"\0" + b"\1" * 64),
    )
)
"""Segments that change what a decoder does with the rest."""
PNG_CHUNKS = (
    (b"tRNS", b"\0\0\0\0\0\0"),
    (b"iCCP", b"x\0\0" + zlib.compress(b"\0" * 128)),
    (b"zTXt", b"x\0\0" + zlib.compress(b"y" * 40)),
    (b"iTXt", b"x\0\1\0\0\0" + zlib.compress(b"y" * 40)),
    (b"eXIf", EXIF_TURNED[6:]),
    (b"acTL", struct.pack(">LL", 2, 0)),
    (b"fcTL", struct.pack(">LLLLLHHBB", 0, COLUMNS, ROWS, 0, 0, 1, 1, 0, 0)),
    (b"PLTE", bytes(range(48))),
    (b"gAMA", struct.pack(">L", 45455)),
)


def drawn(rows: int = ROWS, columns: int = COLUMNS) -> Rgb:
    """Return a spot on skin, (rows, columns, 3)."""
    down, across = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    spot = np.hypot(down, across) < 0.6
    skin = np.stack([200 + 20 * down, 150 + 30 * across, np.full_like(down, 120)], axis=-1)
    return np.where(spot[..., None], (90, 50, 40), skin).astype(np.uint8)


def grey() -> Rgb:
    return np.ascontiguousarray(drawn()[..., 0])


def jpeg(rgb: Rgb, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", **options)
    return stream.getvalue()


def png(picture: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", **options)
    return stream.getvalue()


def jpegs() -> Iterator[bytes]:
    """Yield JPEG streams of the kinds that senders write."""
    rgb = drawn()
    yield jpeg(rgb, quality=60)
    yield jpeg(rgb, quality=60, subsampling=0, restart_marker_blocks=2)
    yield jpeg(rgb, quality=60, progressive=True)
    yield jpeg(rgb, quality=60, keep_rgb=True)
    yield jpeg(rgb, quality=60, icc_profile=srgb_profile())
    yield jpeg(rgb, quality=60, exif=EXIF_TURNED, comment=b"Drawn^Person")
    yield jpeg(rgb[..., 0], quality=60)


def lossless_jpegs(file: bytes) -> Iterator[bytes]:
    """Yield the frame of an uncompressed DICOM file as GDCM encodes it."""
    syntaxes = gdcm.TransferSyntax.JPEGLosslessProcess14_1, gdcm.TransferSyntax.JPEGLosslessProcess14
    with tempfile.TemporaryDirectory() as name:
        path, out = Path(name) / "a.dcm", Path(name) / "b.dcm"
        whole = dcmread(io.BytesIO(file))
        whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = VLPhotographicImageStorage
        whole.file_meta.MediaStorageSOPInstanceUID = whole.SOPInstanceUID
        whole.save_as(path, enforce_file_format=True)
        for syntax in syntaxes:
            _encode_by_gdcm(path, syntax, out)
            yield get_frame(dcmread(out).PixelData, 0, number_of_frames=1)


def _encode_by_gdcm(path: Path, syntax: int, out: Path) -> None:
    reader, writer = gdcm.ImageReader(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(out))
    assert writer.Write()


def jpegs_ls() -> Iterator[bytes]:
    planes = np.ascontiguousarray(np.moveaxis(drawn(), -1, 0))
    yield bytes(jpeg_ls.encode_array(planes, interleave_mode=0))
    for mode in (1, 2):
        yield bytes(jpeg_ls.encode_array(drawn(), interleave_mode=mode))
    yield bytes(jpeg_ls.encode_array(drawn(), lossy_error=3, interleave_mode=2))
    yield bytes(jpeg_ls.encode_array(grey()))


def jpegs_2000() -> Iterator[bytes]:
    yield encode_array(drawn(), photometric_interpretation=1)
    yield encode_array(drawn(), photometric_interpretation=1, use_mct=False)
    yield encode_array(drawn(), photometric_interpretation=1, compression_ratios=[8, 3])
    yield encode_array(drawn(), photometric_interpretation=1, add_plt=True, add_tlm=True)
    yield encode_array(drawn(), photometric_interpretation=1, codec_format=1)
    yield encode_array(grey())


def run_lengths() -> Iterator[bytes]:
    """Yield frames of three segments and of one (PS3.5 annex G)."""
    planes = [_packed(plane.tobytes()) for plane in np.moveaxis(drawn(), -1, 0)]
    for segments in (planes, planes[:1]):
        starts = [64 + sum(map(len, segments[:number])) for number in range(len(segments))]
        yield struct.pack("<16L", len(segments), *starts, *[0] * (15 - len(starts))) + b"".join(segments)


def _packed(plane: bytes) -> bytes:
    """Return the rows of a plane in PackBits: a run for each value that repeats, else literally."""
    found = b""
    for start in range(0, len(plane), COLUMNS):
        row = plane[start : start + COLUMNS]
        same = len(row) - len(row.lstrip(row[:1]))
        found += struct.pack("BB", 257 - same, row[0]) if same > 1 else b""
        rest = row[same:] if same > 1 else row
        found += struct.pack("B", len(rest) - 1) + rest if rest else b""
    return found + b"\0" * (len(found) % 2)


def srgb_profile() -> bytes:
    """Return an sRGB profile as LittleCMS writes it."""
    return _profile("sRGB")


def _profile(space: str) -> bytes:
    """Return a profile without the time when it was made, which would differ every time."""
    whole = ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()  # type: ignore[arg-type]
    return whole[:24] + struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + whole[36:]


def profiles() -> Iterator[bytes]:
    """Yield ICC profiles: sRGB, one of another device, and the kinds that do not fit RGB."""
    whole = srgb_profile()
    yield whole
    yield whole.replace(b"mntrRGB XYZ ", b"scnrRGB XYZ ", 1)
    yield whole[:84] + whole[84:].replace(b"para\0\0\0\0\0\3", b"para\0\0\0\0\0\0")
    for space in ("LAB", "XYZ"):
        yield _profile(space)


def pngs() -> Iterator[bytes]:
    """Yield PNG files of every colour type."""
    picture = Image.fromarray(drawn())
    yield png(picture)
    yield png(picture.convert("RGBA"))
    yield png(picture.convert("P"))
    yield png(picture.convert("P"), transparency=3)
    yield png(picture.convert("L"))
    yield png(picture.convert("1"))
    yield png(picture, icc_profile=srgb_profile(), exif=EXIF_TURNED)
    yield png(picture, save_all=True, append_images=[picture.rotate(180)])


def segments_of(stream: bytes) -> tuple[list[bytes], bytes]:
    """Return the marker segments of a JPEG or JPEG 2000 stream up to its data, and the rest."""
    found, position = [], 2
    while position + 4 <= len(stream) and stream[position] == 0xFF:
        marker, length = struct.unpack_from(">xBH", stream, position)
        end = position + 2 + length
        if end > len(stream):
            break
        found.append(stream[position:end])
        position = end
        if marker in (SOS, 0x90):
            break
    return found, stream[position:]


def changed_segments(stream: bytes, dice: random.Random, mutate: Mutate, more: tuple[bytes, ...]) -> bytes:
    """Return a stream of marker segments changed in one place, lengths made right most of the time."""
    segments, rest = segments_of(stream)
    choice = dice.random()
    if not segments or choice < 0.2:
        return mutate(stream or b"\0", len(stream) + 64)
    number = dice.randrange(len(segments))
    if choice < 0.4:
        rest = mutate(rest or b"\0", len(rest) + 64)
    elif choice < 0.45:
        rest = rest[: dice.randrange(len(rest) + 1)]
    elif choice < 0.55:
        segments.insert(dice.randrange(len(segments) + 1), dice.choice((*more, segments[number])))
    elif choice < 0.6:
        segments.insert(dice.randrange(len(segments)), segments.pop(number))
    elif choice < 0.65:
        del segments[number]
    else:
        segments[number] = _changed_segment(segments[number], dice, mutate)
    return stream[:2] + b"".join(segments) + rest


def _changed_segment(segment: bytes, dice: random.Random, mutate: Mutate) -> bytes:
    body = bytearray(segment[4:])
    if dice.random() < 0.5 and body:
        body[dice.randrange(len(body))] = dice.choice((0, 1, 2, 3, 4, 8, 16, 0x7F, 0x80, 0xFE, 0xFF))
    else:
        body = bytearray(mutate(bytes(body) or b"\0", len(body) + 16))
    return segment[:2] + struct.pack(">H", min(len(body) + 2, 0xFFFF)) + bytes(body[:0xFFFD])


def changed_words(stream: bytes, dice: random.Random, mutate: Mutate, head: int, size: int) -> bytes:
    """Return a stream with one whole number of its head changed, or some bytes anywhere."""
    at = dice.randrange(max(1, min(head, len(stream)) // size)) * size
    if dice.random() < 0.5 or at + size > len(stream):
        return mutate(stream or b"\0", len(stream) + 64)
    number = dice.choice((0, 1, 3, 15, 16, 63, 64, 65, len(stream), len(stream) - 1, 2**31 - 1, 2**32 - 1))
    order = "<" if dice.random() < 0.5 else ">"
    return stream[:at] + struct.pack(f"{order}L", number)[:size] + stream[at + size :]


def chunks_of(file: bytes) -> list[tuple[bytes, bytes]]:
    """Return the chunks of a PNG file as (type, body), as far as their lengths are right."""
    found, position = [], 8
    while position + 12 <= len(file):
        length, kind = struct.unpack_from(">L4s", file, position)
        if position + 12 + length > len(file):
            break
        found.append((kind, file[position + 8 : position + 8 + length]))
        position += 12 + length
    return found


def changed_chunks(file: bytes, dice: random.Random, mutate: Mutate) -> bytes:
    """Return a PNG file with one chunk changed and its checksum made right, or just bytes changed."""
    chunks = chunks_of(file)
    choice = dice.random()
    if not chunks or choice < 0.15:
        return mutate(file or b"\0", len(file) + 64)
    number = dice.randrange(len(chunks))
    kind, body = chunks[number]
    if choice < 0.3:
        chunks.insert(dice.randrange(len(chunks) + 1), dice.choice((*PNG_CHUNKS, chunks[number])))
    elif choice < 0.35:
        chunks.insert(dice.randrange(len(chunks)), chunks.pop(number))
    elif choice < 0.4:
        del chunks[number]
    elif choice < 0.6 and kind == b"IDAT":
        chunks[number] = kind, zlib.compress(mutate(_inflated(body) or b"\0", 2**16))
    else:
        chunks[number] = kind, mutate(body or b"\0", len(body) + 32)
    return file[:8] + b"".join(_chunk(*each) for each in chunks)


def _inflated(body: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(body, 2**16)
    except zlib.error:
        return b""


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))
