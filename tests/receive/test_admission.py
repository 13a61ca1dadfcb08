"""Which objects are analysed: the table of the contract, and what must never be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from drawn_objects import DERMOSCOPIC, SECONDARY_CAPTURE, SEGMENTATION, VL_PHOTOGRAPHIC

from cds_plugin.config import Rule
from cds_plugin.receive.admission import NotAnalysed, reason_not_analysed
from cds_plugin.receive.header import Header

ANYBODY = Rule(calling_ae="*", results_to=())
NAMED = Rule(calling_ae="IMPORTER", results_to=())
MULTI_FRAME_CAPTURE = "1.2.840.10008.5.1.4.1.1.7.4"
NEVER = {
    "Segmentation": SEGMENTATION,
    "Label Map Segmentation": "1.2.840.10008.5.1.4.1.1.66.7",
    "Comprehensive 3D SR": "1.2.840.10008.5.1.4.1.1.88.34",
    "Key Object Selection": "1.2.840.10008.5.1.4.1.1.88.59",
    "Grayscale Softcopy Presentation State": "1.2.840.10008.5.1.4.1.1.11.1",
    "Encapsulated PDF": "1.2.840.10008.5.1.4.1.1.104.1",
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "private": "1.2.3.4",
}


def a_header(sop_class: str) -> Header:
    return Header(
        sop_class_uid=sop_class,
        sop_instance_uid="1.2.3",
        study_instance_uid="1.2.4",
        series_instance_uid="1.2.5",
        patient_id="P1",
        issuer_of_patient_id="",
        image_type=("ORIGINAL", "PRIMARY"),
        burned_in_annotation="",
        made_here=False,
    )


@pytest.mark.parametrize("sop_class", [DERMOSCOPIC, VL_PHOTOGRAPHIC])
def test_photographs_are_analysed_whoever_sends_them(sop_class: str) -> None:
    header = a_header(sop_class)
    assert reason_not_analysed(header, ANYBODY, known_result=False) is None
    derived = replace(header, image_type=("DERIVED", "SECONDARY"), burned_in_annotation="YES")
    assert reason_not_analysed(derived, ANYBODY, known_result=False) is None, "cameras write this"


@pytest.mark.parametrize("sop_class", [SECONDARY_CAPTURE, MULTI_FRAME_CAPTURE])
def test_captures_only_from_a_named_sender(sop_class: str) -> None:
    header = a_header(sop_class)
    assert reason_not_analysed(header, NAMED, known_result=False) is None
    assert reason_not_analysed(header, ANYBODY, known_result=False) is NotAnalysed.SENDER_NOT_NAMED
    assert reason_not_analysed(header, None, known_result=False) is NotAnalysed.SENDER_NOT_NAMED


@pytest.mark.parametrize("sop_class", [DERMOSCOPIC, VL_PHOTOGRAPHIC, SECONDARY_CAPTURE])
def test_a_rule_may_have_it_only_acknowledged(sop_class: str) -> None:
    rule = Rule(calling_ae="IMPORTER", action="acknowledge")
    reason = reason_not_analysed(a_header(sop_class), rule, known_result=False)
    assert reason is NotAnalysed.ONLY_ACKNOWLEDGED


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (Rule(address="10.0.0.0/8"), None),
        (Rule(calling_ae="*", certificate_name="importer.example"), None),
        (Rule(address="0.0.0.0/0"), NotAnalysed.SENDER_NOT_NAMED),
        (Rule(modality="OT"), NotAnalysed.SENDER_NOT_NAMED),
    ],
)
def test_an_address_or_a_certificate_names_a_sender_too(rule: Rule, reason: NotAnalysed | None) -> None:
    assert reason_not_analysed(a_header(SECONDARY_CAPTURE), rule, known_result=False) is reason


def test_captures_with_text_or_derived_never() -> None:
    annotated = replace(a_header(SECONDARY_CAPTURE), burned_in_annotation="YES")
    assert reason_not_analysed(annotated, NAMED, known_result=False) is NotAnalysed.BURNED_IN_ANNOTATION
    derived = replace(a_header(SECONDARY_CAPTURE), image_type=("DERIVED", "SECONDARY"))
    assert reason_not_analysed(derived, NAMED, known_result=False) is NotAnalysed.DERIVED


@pytest.mark.parametrize("sop_class", NEVER.values(), ids=NEVER)
def test_everything_else_is_left_alone(sop_class: str) -> None:
    assert reason_not_analysed(a_header(sop_class), NAMED, known_result=False) is NotAnalysed.SOP_CLASS


@pytest.mark.parametrize("sop_class", [DERMOSCOPIC, SECONDARY_CAPTURE, SEGMENTATION])
def test_our_own_objects_never(sop_class: str) -> None:
    header = a_header(sop_class)
    assert reason_not_analysed(header, NAMED, known_result=True) is NotAnalysed.MADE_HERE
    marked = replace(header, made_here=True)
    assert reason_not_analysed(marked, NAMED, known_result=False) is NotAnalysed.MADE_HERE


def test_a_sender_without_a_rule() -> None:
    assert reason_not_analysed(a_header(DERMOSCOPIC), None, known_result=False) is NotAnalysed.NO_RULE
