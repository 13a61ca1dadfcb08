"""The SR says what the analysis says, to highdicom's reader and to dcmtk."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import highdicom as hd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as dicom_codes
from result_cases import (
    KERATOSIS,
    SOURCES,
    TWO_LESIONS,
    analysis,
    built,
    dermoscopic,
    ellipse,
    only,
    reread,
    with_answers,
)

from cds_plugin.results import codes
from cds_plugin.results.build import build_results
from cds_plugin.results.report import NO_LESION
from cds_plugin.results.shape import outline
from cds_plugin.study import Analysis, Lesion, LesionClass, OperatingPoint, Quality, ResultKind, Verdict

SR = ResultKind.REPORT
Dcmtk = Callable[..., subprocess.CompletedProcess[str]]


def groups_of(report: Dataset) -> list[Any]:
    """Return the TID 1410 groups as highdicom reads them."""
    return list(hd.sr.Comprehensive3DSR.from_dataset(report).content.get_planar_roi_measurement_groups())


def numbers_of(group: Any) -> dict[str, tuple[float, str]]:
    """Return value and unit by code value."""
    return {each.name.value: (each.value, each.unit.value) for each in group.get_measurements()}


def items_of(item: Dataset) -> Iterator[Dataset]:
    """Yield every content item, depth first."""
    for child in item.get("ContentSequence", ()):
        yield child
        yield from items_of(child)


def texts_of(report: Dataset) -> list[str]:
    """Return the report's comments in their order."""
    comments = [each for each in items_of(report) if each.ValueType == "TEXT"]
    return [each.TextValue for each in comments if each.ConceptNameCodeSequence[0].CodeValue == "121106"]


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_highdicom_reads_the_numbers_back(source: Any) -> None:
    header = source()
    results = built(header)
    report = hd.sr.srread(BytesIO(results[SR].as_bytes()))
    groups = report.content.get_planar_roi_measurement_groups()
    assert len(groups) == len(TWO_LESIONS)
    calibrated = "PixelSpacing" in header
    for lesion, group in zip(TWO_LESIONS, groups, strict=True):
        numbers = numbers_of(group)
        for each, probability in zip(LesionClass, lesion.probabilities, strict=True):
            assert numbers[f"PROB_{each}"] == (probability, "{0:1}")
        assert numbers["PROB_malignant"] == (lesion.malignancy, "{0:1}")
        assert numbers["SCORE"] == (lesion.score, "{0:1}")
        assert numbers["42798000"][1] == ("mm2" if calibrated else "{pixels}")
        assert {numbers[code][1] for code in ("81827009", "103339001", "103340004")} == {
            "mm" if calibrated else "{pixels}"
        }


def test_sizes_without_spacing_are_pixels_and_with_spacing_millimetres() -> None:
    (lesion, _) = TWO_LESIONS
    (group, _) = groups_of(reread(built(dermoscopic())[SR]))
    assert numbers_of(group)["42798000"] == (float(lesion.area_px), "{pixels}")
    (group, _) = groups_of(reread(built(dermoscopic(PixelSpacing=[0.02, 0.03]))[SR]))
    assert numbers_of(group)["42798000"] == (pytest.approx(lesion.area_px * 0.02 * 0.03), "mm2")


share = st.floats(0.0, 1.0)
points = st.none() | st.builds(OperatingPoint, share, st.none() | share, share)


@st.composite
def findings(draw: st.DrawFn) -> Analysis:
    """Return an analysis of one or two lesions with any answers."""
    lesions = []
    for number in range(1, draw(st.integers(1, 2)) + 1):
        weights = draw(st.lists(st.floats(1e-12, 1.0), min_size=7, max_size=7))
        probabilities = tuple(weight / sum(weights) for weight in weights)
        kept = tuple(each for each in LesionClass if draw(st.booleans()))
        lesion = ellipse(number, 3, 4 * number, 20, 20, probabilities)
        lesions.append(replace(lesion, prediction_set=kept, ood_score=draw(st.none() | share)))
    return replace(analysis(*lesions), operating_point=draw(points))


@settings(max_examples=8, deadline=None)
@given(findings(), st.sampled_from(sorted(SOURCES)))
def test_any_findings_come_back(said: Analysis, source: str) -> None:
    groups, point = groups_of(reread(only(SR, SOURCES[source](), said))), said.operating_point
    for lesion, group in zip(said.lesions, groups, strict=True):
        assert group.finding_type == hd.sr.CodedConcept.from_code(codes.FINDINGS[lesion.finding])
        assert np.array_equal(group.roi.value, outline(lesion))
        numbers = numbers_of(group)
        assert [numbers[f"PROB_{each}"][0] for each in LesionClass] == list(lesion.probabilities)
        assert next(iter(group.get_measurements())).value == max(lesion.probabilities)
        assert numbers.get("OOD_SCORE", (None, ""))[0] == lesion.ood_score
        assert numbers.get("THRESHOLD", (None, ""))[0] == (point and point.malignancy_threshold)
        assert numbers.get("SENSITIVITY", (None, ""))[0] == (point and point.sensitivity)
        assert evaluated(group, "PREDICTION_SET") == [str(each) for each in lesion.prediction_set]
        flagged = [] if point is None else ["FLAGGED" if point.flags(lesion) else "NOT_FLAGGED"]
        assert evaluated(group, "FLAG") == flagged
        strange = point is not None and point.is_unfamiliar(lesion)
        known = [] if point is None or lesion.ood_score is None else ["UNFAMILIAR" if strange else "FAMILIAR"]
        assert evaluated(group, "FAMILIARITY") == known


def evaluated(group: Any, name: str) -> list[str]:
    """Return the values of a group's qualitative evaluations of that name."""
    every = group.get_qualitative_evaluations()
    return [each.value.value for each in every if each.name.value == name]


def test_the_operating_point_and_the_facts_stand_in_words_too() -> None:
    report = reread(built(said=with_answers(analysis(*TWO_LESIONS)))[SR])
    texts = texts_of(report)
    assert texts[0] == "malignancy threshold 0.250 (fitted to 95% sensitivity) is reached by lesions 1, 2"
    assert texts[1].startswith("unlike the lesions") and texts[1].endswith(": lesion 2")
    assert texts[2] == "probabilities rest on the picture and on the patient's age, sex"
    parameters = {each.TextValue for each in items_of(report) if _name(each) == "111002"}
    assert {"malignancy threshold=0.25", "wanted sensitivity=0.95"} < parameters
    assert {"patient age=56 years", "patient sex=female"} < parameters
    chosen = OperatingPoint(0.9, None, 0.99)
    report = reread(
        built(said=replace(analysis(replace(TWO_LESIONS[1], number=1)), operating_point=chosen))[SR]
    )
    assert "set by the site" in texts_of(report)[0]
    assert "does not exclude disease" in texts_of(report)[0]


def test_the_finding_site_is_the_picture_s() -> None:
    site = Dataset()
    site.CodeValue, site.CodingSchemeDesignator, site.CodeMeaning = "77568009", "SCT", "Back"
    for sequence, expected in (([site], ["77568009"]), ([Dataset()], []), ([], [])):
        report = reread(built(dermoscopic(AnatomicRegionSequence=sequence, ImageLaterality="R"))[SR])
        assert [each.value.value for each in groups_of(report)[0].finding_sites] == expected


def test_the_first_number_is_the_probability_of_the_finding() -> None:
    for lesion, group in zip(TWO_LESIONS, groups_of(reread(built()[SR])), strict=True):
        assert group.finding_type.value == lesion.finding
        assert next(iter(group.get_measurements())).name.value == f"PROB_{lesion.finding}"


def test_a_single_diagnosis_has_its_equivalent_and_a_group_its_members() -> None:
    melanoma, keratosis = groups_of(reread(built()[SR]))
    (equivalent,) = melanoma.finding_type.EquivalentCodeSequence
    assert equivalent.CodeValue == "1162635006"
    assert "EquivalentCodeSequence" not in keratosis.finding_type
    members = [each.value for each in keratosis.get_qualitative_evaluations(codes.CLASS_INCLUDES)]
    assert [each.value for each in members] == ["201101007", "1162893000"]


def test_the_polygon_is_the_outline_of_the_lesion() -> None:
    for lesion, group in zip(TWO_LESIONS, groups_of(reread(built()[SR])), strict=True):
        points = group.roi.value
        assert group.roi.graphic_type.value == "POLYLINE"
        assert np.array_equal(points[0], points[-1])
        drawn = np.zeros((61, 83), dtype=np.uint8)
        cv2.fillPoly(drawn, [np.floor(points).astype(np.int32)], 1)
        assert np.array_equal(drawn.astype(bool), lesion.full_mask(61, 83))


def test_models_are_identified_with_their_digests() -> None:
    report = reread(built()[SR])
    parameters = {each.TextValue for each in items_of(report) if _name(each) == "111002"}
    assert parameters == {f"bundle sha256={letter * 64}" for letter in "abc"}
    names = {each.TextValue for each in items_of(report) if _name(each) == "111001"}
    assert names == {
        "dermoscopy_quality_gate",
        "dermoscopy_lesion_segmentation",
        "dermoscopy_lesion_classification",
    }


def test_evidence_lists_the_picture_and_the_segmentation() -> None:
    header = dermoscopic()
    results = built(header)
    report = hd.sr.srread(BytesIO(results[SR].as_bytes()))
    listed = {str(instance) for _, _, instance, _ in report.get_evidence(current_procedure_only=True)}
    segmentation = results[ResultKind.SEGMENTATION].dataset
    assert listed == {str(header.SOPInstanceUID), str(segmentation.SOPInstanceUID)}


def test_nobody_has_verified_it() -> None:
    report = reread(built()[SR])
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert "research use, not for diagnosis" in report.SeriesDescription
    assert report.ConceptNameCodeSequence[0].CodeValue == "126000"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"


@pytest.mark.parametrize(
    ("verdict", "reasons", "lesions", "first"),
    [
        (Verdict.DIAGNOSTIC, (), (), NO_LESION),
        (Verdict.DIAGNOSTIC, (), TWO_LESIONS, "Research use only, not for diagnosis"),
        (Verdict.LIMITED, ("blurred",), TWO_LESIONS, "limited image quality: blurred"),
        (Verdict.NON_DIAGNOSTIC, ("out of focus", "too dark"), (), "not analysed: out of focus; too dark"),
        (Verdict.NON_DIAGNOSTIC, (), (), "not analysed: no reason given"),
    ],
)
def test_the_weightiest_words_stand_first(
    verdict: Verdict, reasons: tuple[str, ...], lesions: tuple[Lesion, ...], first: str
) -> None:
    report = reread(built(said=analysis(*lesions, verdict=verdict, reasons=reasons))[SR])
    texts = texts_of(report)
    assert texts[0] == first
    assert "Research use only, not for diagnosis" in texts
    assert all(reason in texts for reason in reasons)
    grades = [each for each in items_of(report) if _name(each) == "111101"]
    assert [each.ConceptCodeSequence[0].CodeValue for each in grades] == [codes.QUALITY_GRADES[verdict].value]


def test_a_limited_picture_without_lesion_says_both() -> None:
    said = analysis(verdict=Verdict.LIMITED, reasons=("blurred",))
    assert texts_of(reread(built(said=said)[SR]))[:2] == ["limited image quality: blurred", NO_LESION]


def test_no_lesion_means_no_group_and_no_segmentation() -> None:
    results = built(said=analysis())
    assert set(results) == {ResultKind.REPORT, ResultKind.OVERLAY}
    assert groups_of(reread(results[SR])) == []


def test_an_undecodable_picture_gets_a_report_alone() -> None:
    header = dermoscopic()
    del header.Rows, header.Columns
    bundles = analysis().bundles
    said = Analysis(0, 0, Quality(Verdict.NON_DIAGNOSTIC, ("pixel data is cut off",), None), (), bundles)
    (report,) = build_results(header, None, said, 1)
    assert texts_of(reread(report))[0] == "not analysed: pixel data is cut off"


def test_reasons_in_any_script_do_not_break_the_character_set() -> None:
    header = dermoscopic(SpecificCharacterSet="ISO_IR 100")
    said = analysis(verdict=Verdict.NON_DIAGNOSTIC, reasons=("zu dunkel – 暗い \\ Ä",))
    report = reread(built(header, said)[SR])
    assert texts_of(report)[0] == "not analysed: zu dunkel ? ?? / ?"


def test_thousands_of_outline_points_still_fit() -> None:
    comb = np.ones((20, 9000), dtype=np.bool_)
    comb[:10, ::2] = False
    rows, columns = comb.shape
    lesion = Lesion(1, _box(comb), comb, 0.9, KERATOSIS)
    header = dermoscopic(rows=rows, columns=columns)
    report = reread(only(SR, header, analysis(lesion, rows=rows, columns=columns)))
    (group,) = groups_of(report)
    assert 4 <= len(group.roi.value) <= 1001


def test_dsrdump_reads_it(dcmtk: Dcmtk, tmp_path: Path) -> None:
    path = tmp_path / "report.dcm"
    path.write_bytes(built()[SR].as_bytes())
    shown = dcmtk("dsrdump", "+Pl", path)
    assert shown.returncode == 0, shown.stderr
    for words in ("Probability of melanoma", "Lesion 2", "POLYLINE", "Research use only, not for diagnosis"):
        assert words in shown.stdout


def test_the_procedure_reported_is_the_imaging() -> None:
    report = reread(built()[SR])
    (procedure,) = [each for each in items_of(report) if _name(each) == "121058"]
    concept = procedure.ConceptCodeSequence[0]
    assert concept.CodeValue == dicom_codes.SCT.DermoscopicPhotography.value


def _name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def _box(mask: np.ndarray) -> Any:
    from_mask = ellipse(1, 0, 0, mask.shape[1], mask.shape[0])
    return from_mask.bbox
