"""A stored result in another transfer syntax, for a peer that does not take the one it is stored in.

The stored bytes stay the record. Values and pixels stay what they are, so the SOP Instance UID does, too:
another uncompressed encoding changes nothing, and a compressed picture is decoded, never compressed again.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from pydicom import dcmread, dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from cds_plugin.errors import Refused

PLAIN = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
"""What every peer that stores a class must take one of, in the order that is preferred (PS3.5 section 10)."""
DECODED = frozenset((str(JPEGBaseline8Bit),))
"""The compressed transfer syntaxes that results are stored in."""
PINNED_DECODER = "pillow"


def alternatives(transfer_syntax_uid: str) -> tuple[str, ...]:
    """Return the other transfer syntaxes that an object stored in this one can go in."""
    if transfer_syntax_uid not in (*PLAIN, *DECODED):
        return ()
    return tuple(each for each in PLAIN if each != transfer_syntax_uid)


def recoded(path: Path, transfer_syntax_uid: str) -> bytes:
    """Return a stored result as a DICOM file in one of its alternatives. Raises Refused."""
    dataset = dcmread(path)
    try:
        if dataset.file_meta.TransferSyntaxUID in DECODED:
            dataset.decompress(decoding_plugin=PINNED_DECODER, generate_instance_uid=False)
    except (RuntimeError, ValueError, AttributeError, NotImplementedError) as error:
        raise Refused(
            "cannot_recode", f"a result cannot be decoded ({type(error).__name__})", "Restore its file."
        ) from error
    dataset.file_meta.TransferSyntaxUID = syntax = UID(transfer_syntax_uid)
    file = BytesIO()
    dcmwrite(file, dataset, implicit_vr=syntax.is_implicit_VR, little_endian=True, enforce_file_format=True)
    return file.getvalue()
