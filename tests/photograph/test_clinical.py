"""Age, sex and site as headers write them; what is malformed or impossible counts as not known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from cds_bundles.clinical_facts import REGION_OF
from cds_plugin.photograph.clinical import ClinicalFacts, clinical_facts_of
from cds_plugin.photograph.sites import BODY_PARTS, SITES, SKIN_OF, site_of_body_part, site_of_code


def header(**elements: str) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def coded(value: str, scheme: str) -> Dataset:
    made = header()
    made.AnatomicRegionSequence = [header(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning="x")]
    return made


@pytest.mark.parametrize(
    ("elements", "years"),
    [
        ({"PatientAge": "055Y"}, 55.0),
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientBirthDate": "19700630", "StudyDate": "20200630"}, 50.0),
        ({"PatientBirthDate": "19700630", "StudyDate": "20200630", "AcquisitionDate": "20100630"}, 40.0),
        ({"PatientAge": "055Y", "PatientBirthDate": "19000101", "StudyDate": "20200101"}, 55.0),
        ({"PatientAge": "999Y"}, None),
        ({"PatientAge": "55"}, None),
        ({"PatientBirthDate": "20300101", "StudyDate": "20200101"}, None),
        ({"PatientBirthDate": "1970"}, None),
        ({}, None),
    ],
)
def test_age(elements: dict[str, str], years: float | None) -> None:
    found = clinical_facts_of(header(**elements)).age_years
    assert found is None if years is None else found == pytest.approx(years, abs=0.01)


def test_sex() -> None:
    assert [clinical_facts_of(header(PatientSex=each)).sex for each in ("F", "M", "O", "")] == [
        "female",
        "male",
        "",
        "",
    ]


def test_site_of_codes() -> None:
    found = {
        ("73897004", "SCT"): "face",
        ("66643007", "SCT"): "back",
        ("130305", "DCM"): "ear",
        ("38119", "FMA"): "foot",
        ("T-D1100", "SRT"): "head and neck",
        ("770809003", "SCT"): "",
        ("113277000", "SCT"): "",
        ("73897004", "99X"): "",
    }
    assert {code: clinical_facts_of(coded(*code)).site for code in found} == found


def test_a_code_goes_before_a_body_part() -> None:
    both = coded("73897004", "SCT")
    both.BodyPartExamined = "FOOT"
    assert clinical_facts_of(both).site == "face"
    unknown = coded("nonsense", "99X")
    unknown.BodyPartExamined = "foot"
    assert clinical_facts_of(unknown).site == "foot"
    assert site_of_body_part("UPPER ARM") == "upper extremity"
    assert site_of_body_part("BRAIN") == ""


def test_every_meaning_of_the_table_is_a_code_and_every_site_is_understood() -> None:
    every = (*codes.cid4.concepts.values(), *codes.cid4029.concepts.values())
    known = {code.meaning.lower().removeprefix(SKIN_OF) for code in every}
    meanings = [" ".join(each.split()) for text in SITES.values() for each in text.split(";")]
    assert set(meanings) <= known
    assert len(meanings) == len(set(meanings))
    assert {*SITES, *BODY_PARTS.values()} <= set(REGION_OF)
    assert all(site_of_code(code.value, code.scheme_designator) in {*SITES, ""} for code in every)


@given(st.text(max_size=16), st.text(max_size=4), st.text(max_size=16))
def test_strange_words_are_no_facts(body_part: str, sex: str, date: str) -> None:
    made = Dataset()
    made.add_new("BodyPartExamined", "LO", body_part)
    made.add_new("PatientSex", "LO", sex)
    made.add_new("PatientBirthDate", "LO", date)
    made.add_new("PatientAge", "LO", date)
    assert isinstance(clinical_facts_of(made), ClinicalFacts)
