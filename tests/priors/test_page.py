"""The page says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

from cds_plugin.priors.following import BOUNDS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_has_the_figures_and_the_bounds_in_use() -> None:
    page = (DOCS / "lesion-over-time.md").read_text(encoding="utf-8")
    measured = json.loads((DOCS / "lesion-over-time.json").read_text(encoding="utf-8"))
    assert measured["bounds"] == {"likeness": BOUNDS.likeness, "margin": BOUNDS.margin}
    assert f"AUC {measured['pairs']['auc']:.3f}" in page
    for row in measured["patients"]:
        for name in ("known_again", "taken_for_another", "new_called_known", "precision"):
            figure = row[name]
            assert f"{figure['value']:.3f} ({figure['low']:.3f}-{figure['high']:.3f})" in page
