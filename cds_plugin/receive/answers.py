"""What a C-STORE is answered, and when a data set's identity can be trusted (PS3.4 annex B.2.3). Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from pydicom.dataset import Dataset

from cds_plugin.receive.associations import OpenAssociation
from cds_plugin.receive.header import Header, uid_problem

ERROR_COMMENT_CHARACTERS = 64
"""(0000,0902) is an LO (PS3.7 annex E)."""


class Status(IntEnum):
    """The statuses of a C-STORE response that this listener gives."""

    SUCCESS = 0x0000
    NOT_AUTHORISED = 0x0124
    """Refused: Not Authorized (PS3.7 section 9.1.1.1.9): a rule refuses the object."""
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_DOES_NOT_MATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000


class NotKept(Exception):
    """Nothing of the object is kept; the sender should try again later (0xA700)."""


class Forbidden(Exception):
    """A rule refuses the object: nothing of it is kept, and sending it again changes nothing (0x0124)."""


class Quarantined(Exception):
    """The object is kept in quarantine and answered with `status`."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Offered:
    """One object as it arrived: the file, what the command said, and who sent it.

    Where there is no command the File Meta Information speaks in its place (empty texts where it cannot be
    read); `study_instance_uid` is the study that a web request named, if it named one.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    association: OpenAssociation
    study_instance_uid: str = ""
    sha256: str = ""
    """Of the whole file, where it was hashed as it came."""
    head_bytes: int = 0
    """Length of preamble and File Meta Information, where it is known."""
    content: bytes = field(default=b"", repr=False)
    """The whole file, where it is small and still in memory."""

    @property
    def size_bytes(self) -> int:
        """Return the size of the file."""
        return len(self.content) or self.path.stat().st_size

    @property
    def sender(self) -> dict[str, str]:
        """Return who sent it, for the audit and for the note in quarantine."""
        tls = self.association.tls
        return {
            "calling_ae": self.association.calling_ae,
            "peer": self.association.peer,
            "association": self.association.id,
            **({"certificate": tls.fingerprint} if tls else {}),
        }


def identity_problem(offered: Offered, header: Header) -> str | None:
    """Return why the data set is not the object that the command announced, or None."""
    uids = {
        "SOP Class UID": header.sop_class_uid,
        "SOP Instance UID": header.sop_instance_uid,
        "Study Instance UID": header.study_instance_uid,
        "Series Instance UID": header.series_instance_uid,
        "Transfer Syntax UID": offered.transfer_syntax_uid,
    }
    for name, uid in uids.items():
        problem = uid_problem(uid)
        if problem is not None:
            return f"{name} is {problem}"
    if header.sop_instance_uid != offered.sop_instance_uid:
        return "SOP Instance UID differs from the command's"
    if header.sop_class_uid != offered.sop_class_uid:
        return "SOP Class UID differs from the command's"
    if offered.study_instance_uid and header.study_instance_uid != offered.study_instance_uid:
        return "Study Instance UID differs from the request's"
    return None


def response(status: Status, reason: str) -> Dataset:
    """Return the status data set for pynetdicom, with the reason as Error Comment."""
    answer = Dataset()
    answer.Status = int(status)
    if reason:
        answer.ErrorComment = reason[:ERROR_COMMENT_CHARACTERS]
    return answer
