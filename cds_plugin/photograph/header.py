"""Read a DICOM file up to its pixels, or whole, within bounds; whatever pydicom cannot read is Refused."""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from cds_plugin.elements import is_about_bytes
from cds_plugin.errors import Refused, Unavailable
from cds_plugin.photograph.codestream import damaged

HEADER_BYTES = 64 * 2**20
"""What a header may hold: private thumbnails and ICC profiles are a few MB at most."""
HEADER_READS = 200_000
"""Reads of one header, one or two per element: a dermoscopy header has some hundred elements."""
SEQUENCE_BYTES = 2**20
"""All sequences of defined length together: pydicom parses each in one go, into a hundred times its size."""
SEQUENCE_ITEMS = 20_000
"""The items of all of them: an empty one of eight bytes becomes some 700 in memory."""
ITEM_HEADS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
"""How an item begins, little and big endian (PS3.5 table 7.5-1)."""
DEPTH = 24
"""Nested sequences; imaging headers nest three or four deep."""
PREAMBLE_BYTES = 128
PIXEL_GROUP = 0x7FE0
UNDEFINED = 0xFFFFFFFF
PYDICOM_MODULES = r"pydicom(\.|$)"

# pydicom quotes the values that it warns about, and they may be a patient's name.
warnings.filterwarnings("ignore", module=PYDICOM_MODULES)
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

LIBRARY_ERRORS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""What pydicom raises on malformed elements; its own exceptions derive from these."""

Stop = Callable[[BaseTag, str | None, int], bool]


def read_header(path: Path) -> Dataset:
    """Return the elements before the pixels, with `file_meta`; no value is left unread.

    Elements that cannot be read are left out. Raises Refused (`not_dicom`, `truncated_header`,
    `header_too_large`, `malformed_header`), or Unavailable when the file cannot be opened.
    """
    with opened(path) as stream:
        return header_of(stream)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; raises Unavailable, without its name, where that fails."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise Unavailable(
            "unreadable_file", f"The file cannot be opened: {error.strerror}.", "Check path and rights."
        ) from error
    with stream:
        yield stream


def header_of(stream: BinaryIO) -> Dataset:
    """Return the header of an open file, as `read_header` does."""
    try:
        return _parse(_Bounded(stream, HEADER_BYTES, HEADER_READS), _stop_at_pixels, HEADER_BYTES)
    except (OSError, *LIBRARY_ERRORS) as error:
        if not is_about_bytes(error):
            raise
        raise Refused(
            "malformed_header",
            f"The header cannot be read ({type(error).__name__}).",
            "Correct the sending system.",
        ) from error


def dataset_of(stream: BinaryIO, inflated_bytes: int) -> Dataset:
    """Return the whole data set of a file whose header could be read; for the child, which limits guard."""
    try:
        return _parse(stream, None, inflated_bytes)
    except (OSError, *LIBRARY_ERRORS) as error:
        if not is_about_bytes(error):
            raise
        raise damaged() from error


class _Bounded:
    """Hands out a limited number of bytes in a limited number of reads, and says when it refuses more."""

    def __init__(self, stream: BinaryIO, limit: int, reads: int) -> None:
        self._stream = stream
        self._left = limit
        self._reads = reads
        self._size = stream.seek(0, io.SEEK_END)
        stream.seek(0)

    def read(self, size: int = -1, /) -> bytes:
        there = max(0, self._size - self._stream.tell())
        size = there if size < 0 else min(size, there)
        self._left -= size
        self._reads -= 1
        if self._left < 0 or self._reads < 0:
            raise Refused(
                "header_too_large",
                "The header exceeds its bounds.",
                "Send the object without large private data.",
            )
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def check_holds(self, length: int) -> None:
        """Raise Refused where an element claims more bytes than the file has left."""
        if length != UNDEFINED and self.tell() + length > self._size:
            raise Refused("truncated_header", "The file ends inside its header.", "Send the object again.")


@dataclass(frozen=True, slots=True)
class _Encoding:
    implicit: bool
    little: bool


def _parse(stream: BinaryIO | _Bounded, stop: Stop | None, inflated_bytes: int) -> Dataset:
    _skip_preamble(stream)
    meta = FileMetaDataset(
        read_dataset(cast(BinaryIO, stream), False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
    )
    syntax = meta.get("TransferSyntaxUID")
    encoding = _encoding_of(stream, syntax)
    if syntax == DeflatedExplicitVRLittleEndian:
        inflated = io.BytesIO(_inflate(stream.read(), inflated_bytes))
        stream = _Bounded(inflated, inflated_bytes, HEADER_READS) if stop else inflated
    dataset = read_dataset(
        cast(BinaryIO, stream), encoding.implicit, encoding.little, stop_when=_guarded(stream, stop)
    )
    _settle(dataset, _Sequences(), depth=0)
    dataset.file_meta = meta
    return dataset


def _skip_preamble(stream: BinaryIO | _Bounded) -> None:
    """Leave the stream at the first element; without a preamble it must begin like DICOM all the same."""
    stream.seek(0)
    head = stream.read(PREAMBLE_BYTES + 4)
    if head[PREAMBLE_BYTES:] == b"DICM":
        return
    begins_like_dicom = len(head) > 8 and head[:2] in (b"\x02\x00", b"\x08\x00") and head[3] == 0
    if not begins_like_dicom:
        raise Refused(
            "not_dicom", "The file is not DICOM.", "Send DICOM, or make it from JPEG or PNG with `dicomize`."
        )
    stream.seek(0)


def _encoding_of(stream: BinaryIO | _Bounded, syntax: str | None) -> _Encoding:
    if syntax is not None:
        return _Encoding(syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)
    start = stream.tell()
    vr = stream.read(6)[4:]
    stream.seek(start)
    return _Encoding(implicit=not (vr.isalpha() and vr.isupper()), little=True)


def _inflate(data: bytes, limit: int) -> bytes:
    """Return at most `limit` bytes; a stream cut off by the limit ends where the reader stops anyway."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, limit)
    except zlib.error as error:
        raise Refused(
            "malformed_header", "The deflated data set is damaged.", "Send the object again."
        ) from error


def _stop_at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group >= PIXEL_GROUP


def _guarded(stream: BinaryIO | _Bounded, stop: Stop | None) -> Stop | None:
    """Return `stop`, made to notice elements that reach beyond the end of the file."""
    if stop is None or not isinstance(stream, _Bounded):
        return stop

    def stop_or_refuse(tag: BaseTag, vr: str | None, length: int) -> bool:
        if stop(tag, vr, length):
            return True
        stream.check_holds(length)
        return False

    return stop_or_refuse


@dataclass(slots=True)
class _Sequences:
    """What the sequences of one header may still hold."""

    bytes_left: int = SEQUENCE_BYTES
    items_left: int = SEQUENCE_ITEMS

    def take(self, element: DataElement | RawDataElement) -> None:
        """Raise Refused where an element that pydicom may parse as a sequence exceeds what is left."""
        if not isinstance(element, RawDataElement) or element.length == UNDEFINED or not element.value:
            return
        vr = element.VR or (dictionary_VR(element.tag) if dictionary_has_tag(element.tag) else "UN")
        if vr == "SQ":
            self.bytes_left -= element.length
        if vr in ("SQ", "UN"):
            self.items_left -= max(element.value.count(head) for head in ITEM_HEADS)
        if self.bytes_left < 0 or self.items_left < 0:
            raise Refused(
                "header_too_large", "The sequences exceed their bounds.", "Send the object without them."
            )


def _settle(dataset: Dataset, left: _Sequences, depth: int) -> None:
    """Convert every element now, so that nobody meets a library's exception later; drop the unreadable."""
    if depth > DEPTH:
        raise Refused("malformed_header", "Sequences are nested too deeply.", "Correct the sending system.")
    for tag in list(dataset.keys()):
        if tag.group >= PIXEL_GROUP:
            continue
        left.take(dataset.get_item(tag))
        try:
            element = dataset[tag]
        except LIBRARY_ERRORS:
            del dataset[tag]
            continue
        if element.VR == "SQ":
            for item in element.value:
                _settle(item, left, depth + 1)
