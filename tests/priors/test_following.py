"""From rows of earlier reports to the identity and the prior of the lesions of a new picture."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from pydicom.dataset import Dataset
from result_cases import BUNDLES, analysis, dermoscopic, ellipse

from cds_db.lesions import EarlierLesion
from cds_plugin.photograph.clinical import moment_of
from cds_plugin.priors.following import PictureSeen, followed, picture_seen, reported
from cds_plugin.priors.known import Place
from cds_plugin.results.build import build_results, tracked
from cds_plugin.results.report import NO_PRIOR, statements
from cds_plugin.study import Analysis, Appearance, Lesion, ResultKind

NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
EARLIER = NOW - timedelta(days=120)
MODEL = BUNDLES.classification.sha256
BACK = Place("back")


def looking(lesion: Lesion, *vector: float) -> Lesion:
    unit = np.array(vector) / np.linalg.norm(vector)
    return replace(lesion, appearance=Appearance(tuple(unit.tolist()), MODEL))


A, B = looking(ellipse(1, 5, 7, 31, 23), 1, 0, 0), looking(ellipse(2, 30, 20, 40, 38), 0, 1, 0)
PICTURE = PictureSeen("now", "picture", 0, NOW, BACK)


def visit(study: str, at: datetime, *lesions: Lesion, picture: str = "old picture") -> list[EarlierLesion]:
    seen = PictureSeen(study, picture, 0, at, BACK)
    rows = (replace(each, tracking_uid=f"2.25.{each.number}{len(study)}") for each in lesions)
    return [EarlierLesion(study, reported(each, seen, (0.1, 0.1))) for each in rows]


def follow(known: list[EarlierLesion], *lesions: Lesion) -> Analysis:
    return followed(analysis(*lesions), PICTURE, known)


def test_a_lesion_keeps_its_name_and_names_its_prior() -> None:
    earlier = visit("earlier", EARLIER, A, B)
    first, second = follow(earlier, A, looking(B, 0, 0, 1)).lesions
    assert first.tracking_uid == earlier[0].lesion.tracking_uid
    assert first.prior is not None and first.prior.observed == EARLIER
    assert first.prior.area_mm2 == pytest.approx(A.area_px * 0.01)
    assert first.prior.likeness == pytest.approx(1.0, abs=1e-6)
    assert second.tracking_uid is None and second.prior is None


def test_what_was_seen_later_or_in_this_study_is_no_prior() -> None:
    assert follow(visit("later", NOW + timedelta(days=1), A), A).lesions[0].prior is None
    assert follow(visit("now", EARLIER, A), A).lesions[0].prior is None


def test_a_report_on_this_picture_gives_the_name_whatever_the_model_saw() -> None:
    (earlier,) = visit("now", NOW, A, picture="picture")
    moved = replace(looking(ellipse(1, 6, 8, 31, 23), 0, 0, 1))
    again = follow([earlier], moved).lesions[0]
    assert again.tracking_uid == earlier.lesion.tracking_uid and again.prior is None
    elsewhere = looking(ellipse(1, 50, 35, 31, 23), 0, 0, 1)
    assert follow([earlier], elsewhere).lesions[0].tracking_uid is None


def test_a_name_on_this_picture_that_came_from_an_earlier_visit_keeps_its_prior() -> None:
    (old,) = visit("earlier", EARLIER, A)
    (here,) = visit("now", NOW, A, picture="picture")
    here = EarlierLesion("now", replace(here.lesion, tracking_uid=old.lesion.tracking_uid))
    again = follow([here, old], A).lesions[0]
    assert again.tracking_uid == old.lesion.tracking_uid
    assert again.prior is not None and again.prior.study_instance_uid == "earlier"


def test_the_report_says_what_changed_and_what_is_new() -> None:
    grown = looking(ellipse(1, 5, 7, 41, 31), 1, 0.1, 0)
    said = follow(visit("earlier", EARLIER, A), grown, looking(B, 0, 0, 1))
    words = statements(said, (0.1, 0.1))
    assert any("report of 2025-11-01" in each and "mm2" in each for each in words)
    assert f"{NO_PRIOR}: lesion 2" in words
    assert any("can't be compared" in each for each in statements(said))
    assert not any("earlier report" in each for each in statements(analysis(A)))


def test_numbers_and_codes_of_the_change_stand_in_the_report() -> None:
    header = dermoscopic(FrameOfReferenceUID="2.25.9", PositionReferenceIndicator="", PixelSpacing=[0.1, 0.1])
    grown = looking(ellipse(1, 5, 7, 41, 31), 1, 0.1, 0)
    said = tracked(header, follow(visit("earlier", EARLIER, A), grown, looking(B, 0, 0, 1)))
    built = build_results(header, None, said, 1, NOW)
    report = next(each.dataset for each in built if each.kind is ResultKind.REPORT)
    numbers, codes = _values(report)
    assert numbers["CHANGE_AREA"] == [pytest.approx((grown.area_px - A.area_px) * 0.01, abs=1e-4)]
    assert numbers["CHANGE_malignant"] == [pytest.approx(0.0)]
    assert codes["PRIOR"] == ["PRIOR_FOUND", "NO_PRIOR"]


def _values(item: Dataset) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
    """Return all numbers and codes below an item by the code of their concept."""
    numbers: dict[str, list[float]] = {}
    codes: dict[str, list[str]] = {}
    for each in item.get("ContentSequence", ()):
        name = each.ConceptNameCodeSequence[0].CodeValue if "ConceptNameCodeSequence" in each else ""
        if each.ValueType == "NUM":
            numbers.setdefault(name, []).append(float(each.MeasuredValueSequence[0].NumericValue))
        if each.ValueType == "CODE":
            codes.setdefault(name, []).append(each.ConceptCodeSequence[0].CodeValue)
        for inner, outer in zip(_values(each), (numbers, codes), strict=True):
            for key, values in inner.items():
                outer.setdefault(key, []).extend(values)  # type: ignore[attr-defined]
    return numbers, codes


def test_when_and_where_come_from_the_header() -> None:
    header = dermoscopic(
        AcquisitionDate="20260102", AcquisitionTime="0304", TimezoneOffsetFromUTC="+0200", ImageLaterality="L"
    )
    seen = picture_seen(header, 2, NOW)
    assert seen.observed == datetime(2026, 1, 2, 1, 4, tzinfo=UTC)
    assert (seen.frame, seen.place) == (2, Place(None, "L"))
    bare = dermoscopic()
    del bare.StudyDate
    assert picture_seen(bare, None, NOW).observed == NOW
    bare.StudyDate, bare.StudyTime = "20260230", "9"
    assert moment_of(bare) is None
