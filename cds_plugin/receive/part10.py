"""A DICOM file that somebody else wrote, as the listener would have written its data set.

STOW and WADO bring whole files (PS3.10). Their preamble and File Meta Information are replaced by ours:
the same data set then has the same bytes whichever way it came, and nothing of a sender stands in front
of it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import UID
from pynetdicom.dsutils import create_file_meta, encode_file_meta

from cds_plugin.elements import element_text
from cds_plugin.receive.answers import Offered
from cds_plugin.receive.associations import OpenAssociation
from cds_plugin.receive.bounds import KIBIBYTE
from cds_plugin.receive.header import PARSE_ERRORS, uid_problem

META_BYTES = 64 * KIBIBYTE
"""Preamble and File Meta Information; real ones have some hundred bytes, and all of it is held in memory."""
META_GROUP = 0x0002
PREAMBLE = b"\0" * 128 + b"DICM"


@dataclass(frozen=True, slots=True)
class _Meta:
    """What File Meta Information says of a file; texts as written, an absent one is empty."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    length: int

    @property
    def names_uids(self) -> bool:
        uids = (self.sop_class_uid, self.sop_instance_uid, self.transfer_syntax_uid)
        return all(uid_problem(uid) is None for uid in uids)


def offered_from_file(path: Path, sender: OpenAssociation, study_instance_uid: str = "") -> Offered:
    """Return what a file offers, after replacing its preamble and File Meta Information by ours.

    `study_instance_uid` is the study that the request named, if it named one. Where the File Meta
    Information cannot be read or names no UIDs the file stays as it came; the reception then says why not.
    """
    meta = _read_meta(path)
    if meta is None:
        return Offered(path, "", "", "", sender, study_instance_uid)
    if meta.names_uids:
        _rewrite(path, meta)
    return Offered(
        path,
        meta.sop_class_uid,
        meta.sop_instance_uid,
        meta.transfer_syntax_uid,
        sender,
        study_instance_uid,
    )


def _read_meta(path: Path) -> _Meta | None:
    with path.open("rb") as file:
        head = BytesIO(file.read(META_BYTES))
    try:
        read_preamble(head, force=False)
        said = read_dataset(
            head,
            is_implicit_VR=False,
            is_little_endian=True,
            stop_when=lambda tag, _vr, _length: tag >> 16 != META_GROUP,
        )
    except (OSError, *PARSE_ERRORS):
        return None
    if head.tell() >= META_BYTES:
        return None
    return _Meta(
        _text(said, "MediaStorageSOPClassUID"),
        _text(said, "MediaStorageSOPInstanceUID"),
        _text(said, "TransferSyntaxUID"),
        head.tell(),
    )


def _text(meta: Dataset, keyword: str) -> str:
    return element_text(meta, keyword).strip(" \0")


def _rewrite(path: Path, meta: _Meta) -> None:
    """Write the data set anew behind our own File Meta Information, as pynetdicom does for a C-STORE."""
    own = create_file_meta(
        sop_class_uid=UID(meta.sop_class_uid),
        sop_instance_uid=UID(meta.sop_instance_uid),
        transfer_syntax=UID(meta.transfer_syntax_uid),
    )
    draft = path.with_suffix(".own")
    try:
        with path.open("rb") as source, draft.open("xb") as target:
            target.write(PREAMBLE)
            target.write(encode_file_meta(own))
            source.seek(meta.length)
            shutil.copyfileobj(source, target)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
