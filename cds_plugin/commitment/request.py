"""An N-ACTION of storage commitment as a request, or why it is none (PS3.4 section J.3.2). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cds_db.commitment import Reference
from cds_plugin.elements import element_text, element_value
from cds_plugin.receive.header import uid_problem

PUSH_MODEL = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model SOP Class."""
PUSH_MODEL_SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
"""Not deflated: pynetdicom would inflate a request in memory, and four megabytes can become four thousand."""
WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Storage Commitment Push Model SOP Instance."""
REQUEST_STORAGE_COMMITMENT = 1
"""Action Type ID (PS3.4 table J.3-1)."""
REFERENCES_PER_REQUEST = 32_768
"""More never fit into the 4 MiB that a message may have: an item is up to 118 bytes long."""

ITEM_HEADS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
"""The tag of an item in little and in big endian (PS3.5 section 7.5)."""


class ActionStatus(IntEnum):
    """The statuses of an N-ACTION response that are given (PS3.7 section 10.1.4.1.10)."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    NO_SUCH_ARGUMENT = 0x0114
    INVALID_ARGUMENT = 0x0115
    NO_SUCH_ACTION = 0x0123
    RESOURCE_LIMITATION = 0x0213


class ActionRefused(Exception):
    """The request is answered with `status`; nothing of it is kept."""

    def __init__(self, status: ActionStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def check_action(instance_uid: str, action_type: int) -> None:
    """Raise ActionRefused unless the well-known instance is asked for the one action that it has."""
    if instance_uid != WELL_KNOWN_INSTANCE:
        raise ActionRefused(ActionStatus.NO_SUCH_INSTANCE, "not the well-known instance")
    if action_type != REQUEST_STORAGE_COMMITMENT:
        raise ActionRefused(ActionStatus.NO_SUCH_ACTION, "action type is not 1")


def check_size(encoded: bytes) -> None:
    """Raise ActionRefused where action information is too much to be parsed: items cost a kilobyte each."""
    if max(encoded.count(head) for head in ITEM_HEADS) > REFERENCES_PER_REQUEST:
        raise ActionRefused(ActionStatus.RESOURCE_LIMITATION, "too many references")


def asked_for(information: Dataset) -> tuple[str, tuple[Reference, ...]]:
    """Return transaction UID and references, each once and in their order. Raises ActionRefused."""
    transaction_uid = _uid(information, "TransactionUID")
    items = element_value(information, "ReferencedSOPSequence")
    if not isinstance(items, DicomSequence):
        raise ActionRefused(ActionStatus.NO_SUCH_ARGUMENT, "Referenced SOP Sequence is missing")
    if not items:
        raise ActionRefused(ActionStatus.INVALID_ARGUMENT, "Referenced SOP Sequence is empty")
    if len(items) > REFERENCES_PER_REQUEST:
        raise ActionRefused(ActionStatus.RESOURCE_LIMITATION, "too many references")
    return transaction_uid, tuple(dict.fromkeys(_references(items)))


def _references(items: Sequence[Any]) -> Iterator[Reference]:
    for item in items:
        yield Reference(_uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID"))


def _uid(dataset: Dataset, keyword: str) -> str:
    uid = element_text(dataset, keyword).strip(" \0")
    problem = uid_problem(uid)
    if problem is not None:
        missing = problem == "missing"
        status = ActionStatus.NO_SUCH_ARGUMENT if missing else ActionStatus.INVALID_ARGUMENT
        raise ActionRefused(status, f"{keyword} is {problem}")
    return uid
