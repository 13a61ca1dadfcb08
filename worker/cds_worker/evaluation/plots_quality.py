"""Plots of the quality gate; needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from cds_worker.evaluation.drawing import BLUE, GREEN, ORANGE, RED, Document, Plot, drawn, tall


def quality_plots(document: Document) -> Iterator[Plot]:
    """Yield verdicts and scores by label."""
    curves = document["curves"]
    rows = len(curves["verdicts"])
    yield drawn(
        "verdicts",
        "Verdicts by label",
        "Share of each verdict among the pictures of each label.",
        lambda axes: _verdicts(axes, curves["verdicts"]),
        tall(2 * rows),
    )
    yield drawn(
        "scores",
        "Score by label",
        f"Each picture's score: {curves['score']}.",
        lambda axes: _scores(axes, curves["scores"]),
        tall(2 * rows),
    )


def _verdicts(axes: Axes, verdicts: Mapping[str, Mapping[str, int]]) -> None:
    labels = list(verdicts)
    left = np.zeros(len(labels))
    for verdict, colour in (("diagnostic", GREEN), ("limited", ORANGE), ("non_diagnostic", RED)):
        counts = np.array([verdicts[label][verdict] for label in labels], np.float64)
        shares = counts / [max(1, sum(verdicts[label].values())) for label in labels]
        axes.barh(range(len(labels)), shares, left=left, color=colour, label=verdict.replace("_", "-"))
        left = left + shares
    names = [f"{label} (n = {sum(verdicts[label].values())})" for label in labels]
    axes.set_yticks(range(len(labels)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.4, -0.12), fontsize=8)


def _scores(axes: Axes, scores: Mapping[str, Sequence[float]]) -> None:
    scatter = np.random.default_rng(0)
    for place, values in enumerate(scores.values()):
        axes.plot(values, place + scatter.uniform(-0.3, 0.3, len(values)), ".", color=BLUE, alpha=0.4)
        axes.plot([float(np.median(values))], [place], "|", color=RED, markersize=16, markeredgewidth=2)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.invert_yaxis()
    axes.set_xlabel("score (the mark is the median)")
