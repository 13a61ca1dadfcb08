"""A card says what its metadata says, and both say what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cds_bundles.digest import shipped_bundles
from cds_bundles.model_card import BEGIN, END, CardIncomplete, add_figures, flattened, is_current, rewrite

REPORT = {
    "split": "fold 0",
    "lesions": 3,
    "all": {"accuracy": {"value": 0.5, "low": 0.25, "high": 0.75, "n": 4}},
    "task1": {"value": 0.8, "interval_95": [0.7, 0.9], "n": 10, "split": "Task 1, fold 0"},
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    for folder in ("configs", "docs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps({"eval_metrics": {}}))
    (tmp_path / "docs" / "README.md").write_text(f"# A bundle\n\n{BEGIN}\nold\n{END}\n\nMore.\n")
    return tmp_path


@pytest.mark.parametrize("name", sorted(shipped_bundles()))
def test_the_shipped_cards_show_the_figures_of_their_metadata(name: str) -> None:
    assert is_current(shipped_bundles()[name])


@pytest.mark.parametrize("name", sorted(shipped_bundles()))
def test_every_shipped_figure_has_its_interval_number_and_split(name: str) -> None:
    metadata = json.loads((shipped_bundles()[name] / "configs" / "metadata.json").read_text())
    figures = [figure for part in metadata["eval_metrics"].values() for figure in part.values()]
    assert figures
    for figure in figures:
        assert figure["n"] > 0 and figure["split"]
        assert figure["low"] <= figure["value"] <= figure["high"]


def test_figures_keep_their_split() -> None:
    found = flattened(REPORT)
    assert found["all, accuracy"]["split"] == "fold 0"
    assert (found["task1"]["split"], found["task1"]["low"]) == ("Task 1, fold 0", 0.7)


def test_a_card_follows_its_metadata(bundle: Path) -> None:
    add_figures(bundle, "Lesions", REPORT)
    assert not is_current(bundle)
    rewrite(bundle)
    assert is_current(bundle)
    card = (bundle / "docs" / "README.md").read_text()
    assert "Split: fold 0." in card and "Split: Task 1, fold 0." in card
    assert "| all, accuracy | 0.500 | 0.250 - 0.750 | 4 |" in card
    assert card.startswith("# A bundle") and card.endswith("More.\n") and "\nold\n" not in card


def test_a_card_without_a_place_for_figures_is_named(bundle: Path) -> None:
    (bundle / "docs" / "README.md").write_text("# A bundle\n")
    with pytest.raises(CardIncomplete, match="figures"):
        rewrite(bundle)


def test_the_table_of_classifier_variants_is_that_of_its_file() -> None:
    docs = Path(__file__).parents[2] / "docs"
    variants = json.loads((docs / "models" / "classifier-variants.json").read_text())["variants"]
    page = (docs / "models.md").read_text()
    for name, figures in variants.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| {name} |"))
        for figure in ("balanced_accuracy", "accuracy", "malignancy_auc", "specificity_at_0.95", "ece"):
            low, high = figures[figure]["interval_95"]
            assert f"{figures[figure]['value']:.3f} ({low:.3f}-{high:.3f})" in row
