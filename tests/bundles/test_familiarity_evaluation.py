"""How well strange pictures are told from familiar ones: the figures, and the pictures that are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cds_bundles.familiarity_evaluation import (
    FAMILIAR,
    FamiliarityEvaluation,
    Strangeness,
    held_out_lesions,
    other_pictures,
    told_apart,
)
from cds_bundles.index import read_index
from cds_bundles.predictors import load_predictor

BUNDLE = Path(__file__).parents[2] / "monai_bundles" / "dermoscopy_lesion_classification"


def seen(group: str, score: float, energy: float) -> Strangeness:
    return Strangeness(group, score, 10 * score, energy)


def test_a_score_that_tells_strange_pictures_apart_has_an_auc_of_one_and_a_useless_one_a_half() -> None:
    familiar = [seen(f"a{number}", 0.01 * number, -3.0) for number in range(40)]
    strange = [seen(f"b{number}", 0.9005 + 0.002 * number, -3.0) for number in range(40)]
    figures = told_apart(familiar, strange)
    assert figures["auc_ood_score"]["value"] == figures["auc_distance"]["value"] == 1.0
    assert figures["auc_energy"]["value"] == 0.5
    assert figures["auc_energy"]["n_strange"] == 40
    assert figures["ood_score_above_0.95"]["value"] == pytest.approx(15 / 40)


def test_familiar_lesions_are_held_out_and_strange_pictures_have_boxes(derm_test_data: Path) -> None:
    held_out = {p.lesion_id for p in read_index(derm_test_data / "index.csv") if p.held_out}
    lesions = list(held_out_lesions(derm_test_data, 6))
    assert len({each.group for each in lesions}) == 6
    assert {each.group for each in lesions} <= held_out
    kinds = other_pictures(derm_test_data, 4)
    assert set(kinds) == {"smartphone_photograph", "non_skin", "drawn", "bare_skin"}
    for shown in kinds["drawn"]:
        x0, y0, x1, y1 = shown.bbox
        assert 0 <= x0 < x1 <= shown.rgb.shape[1] and 0 <= y0 < y1 <= shown.rgb.shape[0]


@pytest.mark.slow
def test_the_shipped_classifier_finds_drawn_pictures_strange(derm_test_data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    classifier = load_predictor(BUNDLE)
    evaluation = FamiliarityEvaluation(str(derm_test_data), classifier, str(tmp_path / "report.json"))
    familiar = evaluation._see(FAMILIAR, held_out_lesions(derm_test_data, 14))
    drawn = evaluation._see("drawn", other_pictures(derm_test_data, 14)["drawn"])
    assert all(np.isfinite([each.distance, each.energy]).all() for each in familiar + drawn)
    assert told_apart(familiar, drawn)["auc_ood_score"]["value"] > 0.5
