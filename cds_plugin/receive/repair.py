"""Repairs of malformed objects that a rule may switch on: a second file beside the one that was sent.

Only the header's values change, and only those that are at fault; what follows the header is copied byte
for byte. A deflated data set is left as it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian
from pynetdicom.dsutils import create_file_meta, encode_file_meta, split_dataset

from cds_plugin.config import Repair
from cds_plugin.elements import element_text, is_about_bytes
from cds_plugin.receive.answers import Quarantined, Status
from cds_plugin.receive.header import PARSE_ERRORS
from cds_plugin.receive.structure import DEFERRED_BYTES, HEADER_BYTES, PIXEL_GROUP, Encoding, encoding_of
from cds_plugin.rules.facts import QUOTE, unquoted

PREAMBLE = b"\0" * 128 + b"DICM"
QUOTABLE_VRS = frozenset(["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "PN", "SH", "TM", "UI"])
"""Short values with rules of their own. In free text (LT, ST, UC, UR, UT) quotes are the author's."""
QUOTE_BYTE = QUOTE.encode()
NUL_PADDED = "UI"
"""PS3.5 section 6.2: a UID is padded to even length with NUL, text with a space."""


def repaired_texts(texts: Sequence[str], repairs: Collection[Repair]) -> tuple[str, ...]:
    """Return UIDs of a command as the repairs would make them."""
    return tuple(map(unquoted, texts)) if Repair.QUOTED_VALUES in repairs else tuple(texts)


def repaired_copy(path: Path, transfer_syntax_uid: str, repairs: Collection[Repair]) -> Path | None:
    """Return a file beside `path` with the repaired object, or None where there is nothing to repair.

    The file was read before and found whole. A header that is larger than HEADER_BYTES is not repaired: all
    of it is held in memory. Raises Quarantined where it cannot be written anew.
    """
    if Repair.QUOTED_VALUES not in repairs or transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        return None
    target = path.with_suffix(".repaired")
    try:
        with path.open("rb") as source:
            header = _header(source, path, encoding_of(transfer_syntax_uid))
            if header is None or not _unquote(header):
                return None
            _write(target, header, source, transfer_syntax_uid)
    except (OSError, *PARSE_ERRORS) as error:
        target.unlink(missing_ok=True)
        if not is_about_bytes(error):
            raise
        raise Quarantined(Status.CANNOT_UNDERSTAND, f"cannot be repaired ({type(error).__name__})") from error
    return target


def _header(source: BinaryIO, path: Path, encoding: Encoding) -> Dataset | None:
    """Return the data set up to its pixels, where `source` then stands; None for one that is too large."""
    _, offset = split_dataset(path)
    _read(source, offset, encoding, DEFERRED_BYTES)
    if source.tell() - offset > HEADER_BYTES:
        return None
    return _read(source, offset, encoding, None)


def _read(source: BinaryIO, offset: int, encoding: Encoding, defer_bytes: int | None) -> Dataset:
    source.seek(offset)
    return read_dataset(
        source,
        encoding.implicit,
        encoding.little_endian,
        stop_when=lambda tag, _vr, _length: tag >= PIXEL_GROUP,
        defer_size=defer_bytes,
    )


def _unquote(data_set: Dataset) -> bool:
    """Take the quotes off every value that stands in them; return whether there was one."""
    changed = False
    for tag in list(data_set.keys()):
        element = data_set.get_item(tag)
        if isinstance(element, RawDataElement):
            changed |= _unquote_element(data_set, element)
        elif isinstance(element.value, Items):
            changed |= any([_unquote(item) for item in element.value])
    return changed


def _unquote_element(data_set: Dataset, element: RawDataElement) -> bool:
    value = element.value
    if value is None or QUOTE_BYTE not in value:
        return False
    vr = element.VR or _vr_of(element.tag)
    if vr == "SQ":
        return any([_unquote(item) for item in data_set[element.tag].value])
    if vr not in QUOTABLE_VRS:
        return False
    text = value.decode("latin-1")
    better = unquoted(text)
    if better == text:
        return False
    padding = "\0" if vr == NUL_PADDED else " "
    encoded = (better + padding * (len(better) % 2)).encode("latin-1")
    data_set[element.tag] = element._replace(value=encoded, length=len(encoded))
    return True


def _vr_of(tag: BaseTag) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _write(target: Path, header: Dataset, source: BinaryIO, transfer_syntax_uid: str) -> None:
    encoding = encoding_of(transfer_syntax_uid)
    encoded = DicomBytesIO()
    encoded.is_implicit_VR, encoded.is_little_endian = encoding.implicit, encoding.little_endian
    write_dataset(encoded, header)
    meta = create_file_meta(
        sop_class_uid=UID(element_text(header, "SOPClassUID")),
        sop_instance_uid=UID(element_text(header, "SOPInstanceUID")),
        transfer_syntax=UID(transfer_syntax_uid),
    )
    with target.open("xb") as file:
        file.write(PREAMBLE)
        file.write(encode_file_meta(meta))
        shutil.copyfileobj(BytesIO(encoded.getvalue()), file)
        shutil.copyfileobj(source, file)
