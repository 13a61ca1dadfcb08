"""What a STOW-RS request is answered: status and Store Instances Response (PS3.18 section 10.5.3). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from cds_plugin.receive.answers import Status
from cds_plugin.receive.header import uid_problem

DICOM_JSON = "application/dicom+json"
ACCEPTABLE = frozenset({DICOM_JSON, "application/json", "application/*", "*/*"})
MEANING = {
    HTTPStatus.OK: "every instance is stored durably",
    HTTPStatus.ACCEPTED: "some instances are stored durably, others failed; the payload names each",
    HTTPStatus.BAD_REQUEST: "the body is no multipart/related body, is cut off, or holds no part; "
    "or the study is no UID; nothing is stored",
    HTTPStatus.UNAUTHORIZED: "no known bearer token or client certificate",
    HTTPStatus.FORBIDDEN: "the rules refuse this caller",
    HTTPStatus.NOT_ACCEPTABLE: f"the answer exists only as {DICOM_JSON}",
    HTTPStatus.REQUEST_TIMEOUT: "the body stood still, or took too long; nothing is stored",
    HTTPStatus.CONFLICT: "no instance could be stored; the payload says why for each",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the body is larger than the limit; nothing is stored",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: 'the body is not multipart/related; type="application/dicom", '
    "or is compressed",
    HTTPStatus.SERVICE_UNAVAILABLE: "too many uploads at once, or the disk is below its watermark; "
    "Retry-After says when to come back",
}
"""Every HTTP status of the store transaction and when it is given."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one part; UIDs are those of its File Meta Information, empty where it has none."""

    sop_class_uid: str
    sop_instance_uid: str
    status: Status

    @property
    def is_named(self) -> bool:
        """Return whether the part can be referred to by its UIDs."""
        return uid_problem(self.sop_class_uid) is None and uid_problem(self.sop_instance_uid) is None


@dataclass(frozen=True, slots=True)
class Broken:
    """Why a body was not read to its end: the HTTP status if nothing was stored, and the failure reason."""

    http: HTTPStatus
    status: Status
    reason: str


def is_acceptable(accept: str) -> bool:
    """Return whether an Accept header field, or none (""), admits DICOM JSON (RFC 9110 section 12.5.1)."""
    offers = [each.split(";") for each in accept.lower().split(",") if each.strip()]
    wanted = [offer[0].strip() for offer in offers if not _is_excluded(offer[1:])]
    return not offers or any(each in ACCEPTABLE for each in wanted)


def _is_excluded(parameters: Sequence[str]) -> bool:
    weights = [each.partition("=")[2].strip() for each in parameters if each.strip().startswith("q=")]
    return any(weight.strip("0.") == "" for weight in weights)


def http_status(outcomes: Sequence[Outcome], broken: Broken | None) -> HTTPStatus:
    """Return the status of table 10.5.3-1 for what became of the parts."""
    stored = [each for each in outcomes if each.status is Status.SUCCESS]
    if stored:
        return HTTPStatus.OK if len(stored) == len(outcomes) and broken is None else HTTPStatus.ACCEPTED
    if broken is not None:
        return broken.http
    return HTTPStatus.CONFLICT if outcomes else HTTPStatus.BAD_REQUEST


def store_instances_response(outcomes: Sequence[Outcome], broken: Broken | None) -> dict[str, Any]:
    """Return the Store Instances Response Module (table I.1-1) in DICOM JSON.

    A failure without a UID to name it, and the end of a broken body, stand in Other Failures Sequence.
    Nothing can be retrieved here, so Retrieve URL is empty.
    """
    answer = Dataset()
    answer.RetrieveURL = None
    stored = [_stored(each) for each in outcomes if each.status is Status.SUCCESS]
    failed = [_failed(each) for each in outcomes if each.status is not Status.SUCCESS and each.is_named]
    others = [
        _other(each.status) for each in outcomes if each.status is not Status.SUCCESS and not each.is_named
    ]
    if broken is not None:
        others.append(_other(broken.status))
    if stored:
        answer.ReferencedSOPSequence = Items(stored)
    if failed:
        answer.FailedSOPSequence = Items(failed)
    if others:
        answer.OtherFailuresSequence = Items(others)
    return answer.to_json_dict()


def _reference(outcome: Outcome) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = outcome.sop_class_uid
    item.ReferencedSOPInstanceUID = outcome.sop_instance_uid
    return item


def _stored(outcome: Outcome) -> Dataset:
    item = _reference(outcome)
    item.RetrieveURL = None
    return item


def _failed(outcome: Outcome) -> Dataset:
    item = _reference(outcome)
    item.FailureReason = int(outcome.status)
    return item


def _other(status: Status) -> Dataset:
    item = Dataset()
    item.FailureReason = int(status)
    return item
