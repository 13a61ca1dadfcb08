"""The facts of a received file that decide about it, read without its pixels and within bounds."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from pynetdicom.dsutils import split_dataset

from cds_plugin.elements import element_value, is_about_bytes
from cds_plugin.receive.bounds import INFLATED_BYTES, MEBIBYTE
from cds_plugin.receive.plain import plain_texts
from cds_plugin.receive.structure import (
    DEFERRED_BYTES,
    PIXEL_GROUP,
    Encoding,
    Unparsable,
    check_structure,
    encoding_of,
)
from cds_plugin.results.identity import is_own_object
from cds_plugin.rules import ObjectFacts

UID_CHARACTERS = 64
"""PS3.5 section 9.1."""
PATIENT_ID_CHARACTERS = 128
"""What the database keeps; LO allows 64."""
DESCRIPTION_CHARACTERS = 1024
"""What a pattern of a rule is compared with; LO allows 64."""
IDENTIFYING = frozenset(
    (
        "SOPClassUID",
        "SOPInstanceUID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "PatientID",
        "IssuerOfPatientID",
    )
)
QUOTES = "\"'"
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")

# pydicom quotes the values that it warns about: they may be a patient's name, and every new text is kept.
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

PARSE_ERRORS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on bytes that are not what they should be."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the data set says of itself; UIDs as written, an absent one is the empty text."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    patient_id: str
    issuer_of_patient_id: str
    image_type: tuple[str, ...]
    burned_in_annotation: str
    made_here: bool
    modality: str = ""
    study_description: str = ""
    series_description: str = ""

    @property
    def facts(self) -> ObjectFacts:
        """Return what rules may ask of the object."""
        return ObjectFacts(self.sop_class_uid, self.modality, self.study_description, self.series_description)


def uid_problem(uid: str) -> str | None:
    """Return "missing", "quoted" or "invalid" for what is no UID by PS3.5 section 9.1, else None."""
    if not uid:
        return "missing"
    if any(quote in uid for quote in QUOTES):
        return "quoted"
    if len(uid) > UID_CHARACTERS or not _UID.fullmatch(uid):
        return "invalid"
    return None


def read_received(
    path: Path,
    transfer_syntax_uid: str,
    inflated_bytes: int = INFLATED_BYTES,
    head_bytes: int = 0,
    content: bytes = b"",
    scratch: Path | None = None,
) -> Header:
    """Return the header of a file that the listener wrote.

    `head_bytes` is where its data set begins, if that is known, and `content` the file if it is in memory. A
    deflated one is inflated into a nameless file in `scratch`, or beside it.
    Raises Unparsable where the bytes are no complete data set of that transfer syntax.
    """
    try:
        offset = head_bytes or split_dataset(path)[1]
        if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
            with tempfile.TemporaryFile(dir=scratch or path.parent) as inflated:
                _inflate(path, offset, inflated, inflated_bytes)
                return _read(inflated, 0, encoding_of(ExplicitVRLittleEndian))
        with io.BytesIO(content) if content else path.open("rb") as file:
            return _read(file, offset, encoding_of(transfer_syntax_uid))
    except (OSError, *PARSE_ERRORS) as error:
        if not is_about_bytes(error):
            raise
        raise Unparsable(f"the header cannot be read ({type(error).__name__})") from error


def _read(file: BinaryIO, offset: int, encoding: Encoding) -> Header:
    end = file.seek(0, os.SEEK_END)
    file.seek(offset)
    texts = plain_texts(check_structure(file, end, encoding), encoding.implicit)
    if texts is not None:
        return _header(lambda keyword: texts.get(keyword, ""), made_here=False)
    file.seek(offset)
    header = read_dataset(
        file,
        encoding.implicit,
        encoding.little_endian,
        stop_when=lambda tag, _vr, _length: tag >= PIXEL_GROUP,
        defer_size=DEFERRED_BYTES,
    )
    return _facts(header)


def _inflate(path: Path, offset: int, target: BinaryIO, limit: int) -> None:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with path.open("rb") as source:
        source.seek(offset)
        pending = source.read(MEBIBYTE)
        while pending and not inflater.eof:
            target.write(inflater.decompress(pending, MEBIBYTE))
            if target.tell() > limit:
                raise Unparsable("the deflated data set is too large")
            pending = inflater.unconsumed_tail or source.read(MEBIBYTE)
        target.write(inflater.flush())
    if not inflater.eof:
        raise Unparsable("the deflated data set is cut off")


def _facts(header: Dataset) -> Header:
    """Return the facts of a data set whose long values were left on disk."""
    for element in [each for each in header.values() if _is_deferred(each)]:
        if keyword_for_tag(element.tag) in IDENTIFYING:
            raise Unparsable("an identifying value is too long")
        del header[element.tag]
    return _header(lambda keyword: _text(header, keyword), made_here=is_own_object(header))


def _header(text: Callable[[str], str], *, made_here: bool) -> Header:
    return Header(
        sop_class_uid=text("SOPClassUID"),
        sop_instance_uid=text("SOPInstanceUID"),
        study_instance_uid=text("StudyInstanceUID"),
        series_instance_uid=text("SeriesInstanceUID"),
        patient_id=_bounded(text("PatientID")),
        issuer_of_patient_id=_bounded(text("IssuerOfPatientID")),
        image_type=tuple(text("ImageType").upper().split("\\")),
        burned_in_annotation=text("BurnedInAnnotation").upper(),
        made_here=made_here,
        modality=text("Modality"),
        study_description=text("StudyDescription")[:DESCRIPTION_CHARACTERS],
        series_description=text("SeriesDescription")[:DESCRIPTION_CHARACTERS],
    )


def _is_deferred(element: DataElement | RawDataElement) -> bool:
    return isinstance(element, RawDataElement) and element.value is None and element.length > DEFERRED_BYTES


def _text(header: Dataset, keyword: str) -> str:
    value = element_value(header, keyword)
    if value is None:
        return ""
    parts = value if isinstance(value, MultiValue) else [value]
    return "\\".join(str(part) for part in parts).strip(" \0")


def _bounded(identifier: str) -> str:
    """Return text that any database stores; what is too long keeps its start and a digest of the whole."""
    clean = identifier.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
    if len(clean) <= PATIENT_ID_CHARACTERS:
        return clean
    digest = hashlib.sha256(clean.encode()).hexdigest()[:32]
    return f"{clean[: PATIENT_ID_CHARACTERS - 33]}#{digest}"
