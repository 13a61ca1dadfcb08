"""The codes: no invented SNOMED concept, no value that DICOM can't hold, and the page is the table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.sr._concepts_dict import concepts
from result_cases import CREATED, TWO_LESIONS, analysis, dermoscopic, skin, with_answers

from cds_plugin.results import codes
from cds_plugin.results.build import Wanted, build_results
from cds_plugin.results.codes import CODE_TABLE, CodeRow
from cds_plugin.results.predecessors import Predecessor, Succession
from cds_plugin.study import LesionClass, ResultKind, Verdict

PAGE = Path(__file__).parents[2] / "docs" / "codes.md"

NAMED_BY_TEMPLATE = {"276214006"}
"""TID 1410 calls it "Finding category", the dictionary "Findings category type"."""

_DIHEDRAL = ("0123456789", "1234067895", "2340178956", "3401289567", "4012395678")
_DIHEDRAL += ("5987604321", "6598710432", "7659821043", "8765932104", "9876543210")
_PERMUTATION = "1576283094"


def verhoeff_holds(number: str) -> bool:
    """Return whether the last digit is the Verhoeff check of the others (SNOMED CT's SCTID)."""
    check, positions = 0, list(range(10))
    for digit in reversed(number):
        check = int(_DIHEDRAL[check][positions[int(digit)]])
        positions = [int(_PERMUTATION[each]) for each in positions]
    return check == 0


def test_the_check_knows_right_from_wrong() -> None:
    assert verhoeff_holds("446078004") and verhoeff_holds("49755003")
    assert not verhoeff_holds("446078005") and not verhoeff_holds("460478004")


@pytest.mark.parametrize("row", [row for row in CODE_TABLE if row.code.scheme_designator == "SCT"], ids=str)
def test_snomed_identifiers_pass_their_check_digit(row: CodeRow) -> None:
    assert verhoeff_holds(row.code.value)


@pytest.mark.parametrize("row", CODE_TABLE, ids=lambda row: row.code.value)
def test_dicom_can_hold_it_and_somebody_vouches_for_it(row: CodeRow) -> None:
    assert 1 <= len(row.code.value) <= 16
    assert 1 <= len(row.code.meaning) <= 64
    assert row.source and row.use
    assert (row.code.scheme_designator == "99CDS") == (row.source == "this product")


@pytest.mark.parametrize("row", CODE_TABLE, ids=lambda row: row.code.value)
def test_meanings_are_those_of_the_standard(row: CodeRow) -> None:
    listed = {
        meaning
        for by_value in concepts.get(row.code.scheme_designator, {}).values()
        for value, (meaning, _) in by_value.items()
        if value == row.code.value
    }
    if listed and row.code.value not in NAMED_BY_TEMPLATE:
        assert any(meaning.lower().startswith(row.code.meaning.lower()) for meaning in listed)


def test_no_code_stands_twice() -> None:
    keys = [(row.code.scheme_designator, row.code.value) for row in CODE_TABLE]
    assert len(keys) == len(set(keys))


def test_every_class_and_verdict_has_its_codes() -> None:
    assert set(codes.FINDINGS) == set(codes.PROBABILITIES) == set(LesionClass)
    assert set(codes.EQUIVALENTS) | set(codes.MEMBERS) == set(LesionClass)
    assert set(codes.EQUIVALENTS).isdisjoint(codes.MEMBERS)
    assert set(codes.QUALITY_GRADES) == set(Verdict)
    assert all(code.value == f"PROB_{each}" for each, code in codes.PROBABILITIES.items())


def test_every_code_that_is_sent_stands_in_the_table() -> None:
    site = Dataset()
    site.CodeValue, site.CodingSchemeDesignator, site.CodeMeaning = "77568009", "SCT", "Back"
    header = dermoscopic(AnatomicRegionSequence=[site], ImageLaterality="L")
    predecessor = Predecessor("1.2", "1.3", "1.4", "1.5", Succession.REPLACES)
    wanted = Wanted(frozenset(ResultKind))
    said = with_answers(analysis(*TWO_LESIONS))
    results = build_results(header, skin(), said, 2, CREATED, [predecessor], wanted=wanted)
    sent = {code for each in results for code in codes_in(each.dataset)}
    known = {(row.code.scheme_designator, row.code.value) for row in CODE_TABLE}
    assert sent - known == {("SCT", "77568009")}, "the picture's own site, and nothing else"
    assert ("SCT", "7771000") in sent


def codes_in(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Yield scheme and value of every code in a data set, depth first."""
    if "CodeValue" in dataset:
        yield dataset.CodingSchemeDesignator, dataset.CodeValue
    for element in dataset:
        for item in element.value if element.VR == "SQ" else ():
            yield from codes_in(item)


def test_the_page_is_the_table() -> None:
    assert codes.code_table_markdown() in PAGE.read_text(encoding="utf-8")
