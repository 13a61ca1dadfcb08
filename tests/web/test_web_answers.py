"""Answers of the store transaction: each mixture of outcomes has one status and names each instance once."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from cds_plugin.receive.answers import Status
from cds_plugin.web.answers import (
    MEANING,
    Broken,
    Outcome,
    http_status,
    is_acceptable,
    store_instances_response,
)

UID = st.sampled_from(["1.2.840.1", "1.2.3", "", '"1.2"', "x" * 65])
OUTCOME = st.builds(Outcome, UID, UID, st.sampled_from(Status))
OUTCOMES = st.lists(
    OUTCOME.filter(lambda each: each.is_named or each.status is not Status.SUCCESS), max_size=6
)
BROKEN = st.none() | st.builds(
    Broken,
    st.sampled_from([HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE]),
    st.just(Status.CANNOT_UNDERSTAND),
    st.just("why"),
)


@given(OUTCOMES, BROKEN)
def test_the_status_tells_how_many_were_stored(outcomes: list[Outcome], broken: Broken | None) -> None:
    status = http_status(outcomes, broken)
    stored = sum(each.status is Status.SUCCESS for each in outcomes)
    assert status in MEANING
    assert (status is HTTPStatus.OK) == (0 < stored == len(outcomes) and broken is None)
    assert (status < 300) == (stored > 0)
    if not stored:
        assert status is (
            broken.http if broken else HTTPStatus.CONFLICT if outcomes else HTTPStatus.BAD_REQUEST
        )


@given(OUTCOMES, BROKEN)
def test_every_outcome_stands_in_one_sequence(outcomes: list[Outcome], broken: Broken | None) -> None:
    module = store_instances_response(outcomes, broken)
    answer = Dataset.from_json(json.dumps(module))
    assert module["00081190"] == {"vr": "UR"}, "type 2: there, and empty"
    stored = answer.get("ReferencedSOPSequence", [])
    failed = answer.get("FailedSOPSequence", [])
    others = answer.get("OtherFailuresSequence", [])
    assert len(stored) == sum(each.status is Status.SUCCESS for each in outcomes)
    assert len(stored) + len(failed) + len(others) == len(outcomes) + (broken is not None)
    assert all(item.ReferencedSOPInstanceUID and item.ReferencedSOPClassUID for item in failed)
    assert {int(item.FailureReason) for item in [*failed, *others]} <= {int(each) for each in Status}
    assert all(module.values()), "no empty sequence"


@pytest.mark.parametrize(
    ("accept", "admitted"),
    [
        ("", True),
        ("*/*", True),
        ("application/dicom+json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/dicom+xml, application/dicom+json;q=0.5", True),
        ("application/dicom+xml", False),
        ('multipart/related; type="application/dicom+xml"', False),
        ("application/dicom+json;q=0", False),
        ("application/dicom+json; q=0.000, text/html", False),
        ("text/*", False),
    ],
)
def test_only_dicom_json_is_offered(accept: str, admitted: bool) -> None:
    assert is_acceptable(accept) is admitted
