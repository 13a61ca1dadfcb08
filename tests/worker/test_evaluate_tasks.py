"""The figures of each task, counted by hand on observations that are written down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_cases import (
    POINT,
    a_case,
    a_label_picture,
    a_lesion,
    a_mask,
    an_observation,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn import metrics as sk

from cds_bundles.classes import CLASSES, MALIGNANT_CLASSES
from cds_bundles.metric_resampling import estimates
from cds_bundles.skin_tone import SkinTone
from cds_plugin.errors import Refused
from cds_plugin.study import OperatingPoint, Verdict
from cds_worker.evaluation.cases import Case
from cds_worker.evaluation.observing import Observation
from cds_worker.evaluation.subgroups import age_band, subgroups
from cds_worker.evaluation.task import TaskName
from cds_worker.evaluation.tasks import task_of

Pair = tuple[Case, Observation]
ROUNDS = 50


def figures(
    name: TaskName, pairs: Sequence[Pair], point: OperatingPoint = POINT
) -> dict[str, dict[str, Any]]:
    """Return every figure as figures.json holds it."""
    task = task_of(name, point)
    rows = [task.row(case, observation) for case, observation in pairs if task.takes(case)]
    found = estimates(task.measures(rows), [row.case.lesion_id for row in rows], "fold 0", ROUNDS)
    return {name: estimate.as_json() for name, estimate in found.items()}


def answered(number: int, dx: str, finding: str, certainty: float = 0.7, **said: Any) -> Pair:
    return a_case(number, dx), an_observation(a_lesion(finding, certainty=certainty, **said))


SIX = [
    answered(0, "nv", "nv"),
    answered(1, "nv", "mel"),
    answered(2, "mel", "mel"),
    (a_case(3, "mel"), an_observation()),
    answered(4, "bkl", "bkl"),
    (a_case(5, "bcc"), an_observation(verdict=Verdict.NON_DIAGNOSTIC)),
]


def test_a_picture_without_a_finding_is_wrong_and_never_flagged() -> None:
    found = figures(TaskName.CLASSIFICATION, SIX)
    assert found["accuracy"]["value"] == 0.5
    assert found["balanced_accuracy"]["value"] == pytest.approx((0.5 + 0.5 + 1 + 0) / 4)
    assert found["share_without_finding"]["value"] == pytest.approx(2 / 6, abs=1e-4)
    assert found["malignancy_sensitivity"]["value"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["malignancy_specificity"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert figures(TaskName.CLASSIFICATION, SIX, OperatingPoint(0.0, None, 0.9))["malignancy_sensitivity"][
        "value"
    ] == pytest.approx(1 / 3, abs=1e-4), "nothing found is not flagged, however low the threshold"


def test_every_figure_has_the_n_that_it_rests_on() -> None:
    found = figures(TaskName.CLASSIFICATION, SIX)
    expected = {
        "accuracy": 6,
        "sensitivity_nv": 2,
        "specificity_nv": 4,
        "precision_mel": 2,
        "sensitivity_df": 0,
        "auc_mel": 6,
        "malignancy_sensitivity": 3,
        "malignancy_precision": 2,
        "ece": 4,
        "coverage": 4,
        "coverage_nv": 2,
    }
    assert {name: found[name]["n"] for name in expected} == expected
    assert found["sensitivity_df"]["value"] is None
    assert found["sensitivity_nv"]["lesion_ids"] == 2


def test_the_largest_lesion_answers_for_the_picture() -> None:
    small = a_lesion("mel", box=(0, 0, 5, 5), score=0.99)
    large = a_lesion("nv", box=(20, 10, 60, 50), score=0.5, number=2)
    found = figures(TaskName.CLASSIFICATION, [(a_case(0, "nv"), an_observation(small, large))])
    assert found["accuracy"]["value"] == 1.0


def test_coverage_and_size_are_those_of_the_prediction_sets() -> None:
    pairs = [
        answered(0, "nv", "nv", prediction_set=["nv"]),
        answered(1, "nv", "mel", prediction_set=["mel", "nv"]),
        answered(2, "mel", "nv", prediction_set=["nv"]),
        (a_case(3, "mel"), an_observation()),
    ]
    found = figures(TaskName.CLASSIFICATION, pairs)
    assert found["coverage"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert (found["coverage_nv"]["value"], found["coverage_mel"]["value"]) == (1.0, 0.0)
    assert found["mean_set_size"]["value"] == pytest.approx(4 / 3, abs=1e-4)
    assert found["share_sets_of_one"]["value"] == pytest.approx(2 / 3, abs=1e-4)


def test_lesions_unlike_those_learned_from_are_counted_where_a_score_is_given() -> None:
    pairs = [
        answered(0, "nv", "nv", ood_score=0.95),
        answered(1, "nv", "nv", ood_score=0.2),
        answered(2, "nv", "nv"),
    ]
    found = figures(TaskName.CLASSIFICATION, pairs)["share_unfamiliar"]
    assert (found["value"], found["n"]) == (0.5, 2)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_classification_agrees_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, said = rng.choice(CLASSES, 40), rng.choice(CLASSES, 40)
    certainty = rng.uniform(0.3, 0.99, 40)
    pairs = [answered(i, *each) for i, each in enumerate(zip(truth, said, certainty, strict=True))]
    found = figures(TaskName.CLASSIFICATION, pairs)
    assert found["accuracy"]["value"] == pytest.approx(sk.accuracy_score(truth, said), abs=1e-4)
    assert found["balanced_accuracy"]["value"] == pytest.approx(
        sk.recall_score(truth, said, labels=sorted(set(truth)), average="macro"), abs=1e-4
    )
    malignant = np.isin(truth, MALIGNANT_CLASSES)
    risk = [
        certain + 2 * (1 - certain) / 6 if each in MALIGNANT_CLASSES else 3 * (1 - certain) / 6
        for each, certain in zip(said, certainty, strict=True)
    ]
    assert found["malignancy_auc"]["value"] == pytest.approx(sk.roc_auc_score(malignant, risk), abs=1e-4)
    for name in set(truth):
        report = sk.classification_report(truth == name, said == name, output_dict=True, zero_division=0)
        assert found[f"sensitivity_{name}"]["value"] == pytest.approx(report["True"]["recall"], abs=1e-4)
        assert found[f"specificity_{name}"]["value"] == pytest.approx(report["False"]["recall"], abs=1e-4)


def test_one_kind_of_lesion_alone_leaves_malignancy_open() -> None:
    task = task_of(TaskName.CLASSIFICATION, POINT)
    rows = [task.row(*answered(i, "nv", "nv")) for i in range(3)]
    curves = task.curves(rows, "fold 0")
    assert all(row["sensitivity"] is None for row in curves["thresholds"])
    assert figures(TaskName.CLASSIFICATION, [answered(0, "nv", "nv")])["malignancy_auc"]["value"] is None


def outlined(path: Path, *boxes: tuple[int, int, int, int], step: int = 255) -> Case:
    return a_case(0, mask_path=a_label_picture(path, *boxes, step=step))


def test_outlines_are_the_union_of_the_finds(tmp_path: Path) -> None:
    case = outlined(tmp_path / "mask.png", (20, 10, 60, 40))
    halves = a_lesion(box=(20, 10, 40, 40)), a_lesion(box=(40, 10, 60, 40), number=2)
    found = figures(TaskName.SEGMENTATION, [(case, an_observation(*halves))])
    for name in ("mean_dice", "mean_iou", "mean_boundary_f1", "thresholded_jaccard"):
        assert found[name]["value"] == 1.0
    assert found["share_one_find"]["value"] == 0.0
    half = figures(TaskName.SEGMENTATION, [(case, an_observation(halves[0]))])
    assert (half["mean_iou"]["value"], half["thresholded_jaccard"]["value"]) == (0.5, 0.0)
    assert half["share_failed"]["value"] == 1.0
    nothing = figures(TaskName.SEGMENTATION, [(case, an_observation())])
    assert (nothing["mean_dice"]["value"], nothing["mean_boundary_f1"]["value"]) == (0.0, 0.0)


def test_an_empty_mask_is_met_by_nothing_found(tmp_path: Path) -> None:
    case = outlined(tmp_path / "mask.png")
    assert figures(TaskName.SEGMENTATION, [(case, an_observation())])["mean_iou"]["value"] == 1.0
    assert figures(TaskName.SEGMENTATION, [(case, an_observation(a_lesion()))])["mean_iou"]["value"] == 0.0


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P"])
def test_masks_of_every_usual_mode_are_read(mode: str, tmp_path: Path) -> None:
    Image.fromarray(a_mask((20, 10, 50, 40)).astype(np.uint8) * 255).convert(mode).save(tmp_path / "mask.png")
    case = a_case(0, mask_path=tmp_path / "mask.png")
    assert figures(TaskName.SEGMENTATION, [(case, an_observation(a_lesion()))])["mean_iou"]["value"] == 1.0


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_a_mask_that_is_none_is_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "mask.png").write_bytes(content)
    with pytest.raises(Refused) as caught:
        figures(TaskName.SEGMENTATION, [(a_case(0, mask_path=tmp_path / "mask.png"), an_observation())])
    assert caught.value.code == "bad_mask"


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    Image.new("L", (80, 61)).save(tmp_path / "mask.png")
    with pytest.raises(Refused, match="is 80x61, its picture 80x60"):
        figures(TaskName.INSTANCES, [(a_case(0, mask_path=tmp_path / "mask.png"), an_observation())])


def test_lesions_are_told_apart(tmp_path: Path) -> None:
    boxes = ((0, 0, 20, 20), (40, 0, 60, 20), (0, 40, 20, 60))
    case = outlined(tmp_path / "labels.png", *boxes, step=1)
    finds = (
        a_lesion(box=boxes[0], score=0.9),
        a_lesion(box=(40, 0, 60, 12), score=0.8, number=2),
        a_lesion(box=(60, 40, 80, 60), score=0.7, number=3),
    )
    empty = a_case(1, mask_path=a_label_picture(tmp_path / "empty.png"))
    found = figures(TaskName.INSTANCES, [(case, an_observation(*finds)), (empty, an_observation())])
    assert found["sensitivity_at_iou_50"] | {"interval_95": 0} == {
        "value": 0.6667, "interval_95": 0, "n": 3, "unit": "lesions", "lesion_ids": 1, "split": "fold 0",
    }  # fmt: skip
    assert (found["precision_at_iou_50"]["value"], found["precision_at_iou_50"]["unit"]) == (0.6667, "finds")
    assert found["mean_lesion_iou"]["value"] == pytest.approx((1 + 0.6 + 0) / 3, abs=1e-4)
    assert found["ap50"]["value"] == pytest.approx(67 / 101, abs=1e-4)
    assert found["ap75"]["value"] == pytest.approx(34 / 101, abs=1e-4)
    assert found["count_accuracy"]["value"] == 1.0, "the number is right, though one find is not"
    assert found["false_finds_per_picture"]["value"] == 0.5
    assert (found["share_empty_pictures_left_empty"]["value"], found["count_accuracy_several"]["n"]) == (
        1.0,
        1,
    )


def test_label_values_need_not_be_consecutive_and_soft_masks_are_one_lesion(tmp_path: Path) -> None:
    case = outlined(tmp_path / "labels.png", (0, 0, 20, 20), (40, 0, 60, 20), step=100)
    finds = a_lesion(box=(0, 0, 20, 20)), a_lesion(box=(40, 0, 60, 20), number=2)
    assert figures(TaskName.INSTANCES, [(case, an_observation(*finds))])["ap75"]["value"] == 1.0
    soft = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (60, 1))
    Image.fromarray(soft).save(tmp_path / "soft.png")
    found = figures(TaskName.INSTANCES, [(a_case(0, mask_path=tmp_path / "soft.png"), an_observation())])
    assert found["sensitivity_at_iou_50"]["n"] == 1


def judged(number: int, label: str, verdict: Verdict, defect: float | None, psnr_db: float = 30.0) -> Pair:
    said = an_observation(verdict=verdict, defect=defect, psnr_db=psnr_db)
    return a_case(number, "", quality=label), said


def test_faults_are_told_from_good_pictures() -> None:
    pairs = [
        judged(0, "good", Verdict.DIAGNOSTIC, 0.1, 33),
        judged(1, "good", Verdict.LIMITED, 0.6, 31),
        judged(2, "blurred", Verdict.NON_DIAGNOSTIC, 1.2, 38),
        judged(3, "blurred", Verdict.DIAGNOSTIC, 0.4, 36),
        judged(4, "dark", Verdict.NON_DIAGNOSTIC, 2.0, 20),
        judged(5, "", Verdict.LIMITED, 0.7),
    ]
    found = figures(TaskName.QUALITY, pairs)
    assert (found["auc_blurred"]["value"], found["auc_dark"]["value"]) == (0.75, 1.0)
    assert (found["psnr_auc_blurred"]["value"], found["psnr_auc_dark"]["value"]) == (0.0, 1.0)
    assert (found["auc_blurred"]["n"], found["noticed_blurred"]["n"], found["share_limited"]["n"]) == (
        4,
        2,
        6,
    )
    assert (found["noticed_blurred"]["value"], found["refused_dark"]["value"]) == (0.5, 1.0)
    assert (found["good_analysed"]["value"], found["good_diagnostic"]["value"]) == (1.0, 0.5)
    assert found["faults_noticed"]["value"] == pytest.approx(2 / 3, abs=1e-4)


def test_without_a_defect_the_verdicts_are_ranked() -> None:
    pairs = [
        judged(0, "good", Verdict.DIAGNOSTIC, None),
        judged(1, "good", Verdict.LIMITED, 0.6),
        judged(2, "dark", Verdict.LIMITED, 0.9),
    ]
    task = task_of(TaskName.QUALITY, POINT)
    rows = [task.row(*pair) for pair in pairs]
    assert figures(TaskName.QUALITY, pairs)["auc_dark"]["value"] == 0.75
    assert "the verdict alone" in task.notes(rows)[0]


@pytest.mark.parametrize(
    ("dx", "quality", "label"),
    [
        ("nv", "", "good"),
        ("good", "", "good"),
        ("blurred", "", "blurred"),
        ("no lesion", "", "no_lesion"),
        ("non-skin", "", "non_skin"),
        ("scc", "", ""),
        ("", "", ""),
        ("nv", "blurred", "blurred"),
        ("blurred", "good", "good"),
        ("nv", "finger in front", "finger_in_front"),
    ],
)
def test_the_label_of_a_picture(dx: str, quality: str, label: str) -> None:
    row = task_of(TaskName.QUALITY, POINT).row(a_case(0, dx, quality=quality), an_observation())
    assert row.label == label


def test_subgroups_hold_the_figures_of_their_own_pictures() -> None:
    pairs = [
        (a_case(0, "nv", sex="male", age=30.0), an_observation(a_lesion("nv"))),
        (a_case(1, "nv", sex="male", age=80.0), an_observation(a_lesion("mel"))),
        (a_case(2, "mel", sex="female"), an_observation(a_lesion("mel"), tone=SkinTone("dark", -40.0))),
    ]
    task = task_of(TaskName.CLASSIFICATION, POINT)
    found = subgroups(task, [task.row(*pair) for pair in pairs], "fold 0")
    assert set(found) == {"age", "sex", "skin_tone"}, "nobody filled in site and histology"
    assert list(found["sex"]) == ["female", "male"]
    male = found["sex"]["male"]
    assert (male["pictures"], male["lesion_ids"], male["figures"]["accuracy"]["value"]) == (2, 2, 0.5)
    assert list(found["skin_tone"]) == ["light", "dark"], "from light to dark"
    assert list(found["age"]) == ["30 to 44", "75 and over", "unknown"]


@given(st.none() | st.floats(0, 120))
def test_every_age_has_one_band(age: float | None) -> None:
    band = age_band(age)
    if age is None:
        assert band == "unknown"
    elif band == "75 and over":
        assert age >= 75
    else:
        low, high = map(int, band.split(" to "))
        assert low <= age < high + 1


def test_figures_of_nothing_but_refusals_do_not_crash() -> None:
    pairs = [(a_case(i, "nv"), an_observation(verdict=Verdict.NON_DIAGNOSTIC)) for i in range(3)]
    found = figures(TaskName.CLASSIFICATION, pairs)
    assert found["accuracy"]["value"] == 0.0
    assert found["ece"]["value"] is None
    assert not any(math.isnan(each["value"]) for each in found.values() if each["value"] is not None)
