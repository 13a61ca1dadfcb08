"""The tables of docs/models.md say what the committed reports say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cds_bundles.comparison_report import NoPlaceForTable, tables, with_table, write

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "models.md").read_text(encoding="utf-8")
REPORTS = [each for each in sorted((DOCS / "models").glob("*.json")) if f"<!-- {each.stem}:" in PAGE]


def estimate(value: float) -> dict[str, object]:
    return {
        "value": value,
        "interval_95": [value - 0.1, value + 0.1],
        "n": 20,
        "lesion_ids": 18,
        "split": "fold 0",
    }


def found(value: float) -> dict[str, object]:
    names = ("balanced_accuracy", "accuracy", "malignancy_auc", "specificity_at_95_sensitivity")
    return {name: estimate(value) for name in (*names, "melanoma_sensitivity", "ece")}


def a_report() -> dict[str, object]:
    how = {"network": "lite", "start": "none", "crop_px": 32, "steps": 3, "batch": 4}
    better = found(0.7) | {"gain_in_balanced_accuracy": estimate(0.2)}
    folds = {str(fold): found(0.4 + fold / 10) for fold in range(2)}
    means = {name: {"mean": 0.45, "sd": 0.07} for name in found(0.4)}
    return {
        "configuration": how | {"learning_rate": 0.1, "seed": 1, "label_smoothing": 0.1},
        "comparison": {"plain": found(0.5), "better": better},
        "folds": {"variant": "better", "each": folds, "together": found(0.45), "mean_of_folds": means},
    }


def test_a_table_has_the_best_first_with_intervals() -> None:
    lines = tables(a_report()).splitlines()
    assert "n 20 pictures of 18 lesions; fold 0" in lines[0]
    assert lines[4].startswith("| better | 0.700 (0.600 to 0.800) | +0.200 (+0.100 to +0.300) | 0.700 |")
    assert lines[5].startswith("| plain | 0.500 (0.400 to 0.600) | - |")
    assert any(line.startswith("| fold 1 | 20 | 0.500") for line in lines)
    assert lines[-1].startswith("| mean ± standard deviation of the folds | | 0.450 ± 0.070")


def test_a_report_is_written_into_its_place_and_plotted(tmp_path: Path) -> None:
    report, page = tmp_path / "small.json", tmp_path / "page.md"
    report.write_text(json.dumps(a_report()))
    page.write_text("# Page\n<!-- small: from models/small.json -->\nold\n<!-- end of small -->\nrest\n")
    write(str(page), str(report))
    text = page.read_text()
    assert "| better |" in text and "\nold\n" not in text and text.endswith("rest\n")
    first = (tmp_path / "small.svg").read_text()
    write(str(page), str(report))
    assert page.read_text() == text and (tmp_path / "small.svg").read_text() == first
    with pytest.raises(NoPlaceForTable, match="other"):
        with_table(text, "other", "")


@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.stem)
def test_the_page_is_current(report: Path) -> None:
    text = (DOCS / "models.md").read_text(encoding="utf-8")
    assert with_table(text, report.stem, tables(json.loads(report.read_text(encoding="utf-8")))) == text
