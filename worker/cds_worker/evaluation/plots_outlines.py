"""Plots of outlines and of lesions told apart; needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from cds_worker.evaluation.drawing import BLUE, ORANGE, RED, Document, Plot, drawn, unit_square

BINS = 25


def segmentation_plots(document: Document) -> Iterator[Plot]:
    """Yield the distributions."""
    for name, values in document["curves"]["distributions"].items():
        yield drawn(
            name.lower().replace(" ", "_"),
            f"{name} of the pictures",
            f"How many pictures have which {name}; the line is the mean.",
            partial(_histogram, values=values, name=name),
        )


def _histogram(axes: Axes, values: Sequence[float], name: str) -> None:
    axes.hist(values, bins=BINS, range=(0, 1), color=BLUE)
    axes.axvline(float(np.mean(values)), color=RED, linewidth=1)
    axes.set_xlim(0, 1)
    axes.set_xlabel(name)
    axes.set_ylabel("pictures")


def instances_plots(document: Document) -> Iterator[Plot]:
    """Yield precision over recall, and found against true numbers."""
    curves = document["curves"]
    yield drawn(
        "precision_recall",
        "Precision and recall of the finds",
        "A point after each find of all pictures, surest first.",
        lambda axes: _precision_recall(axes, curves["precision_recall"]),
    )
    yield drawn(
        "counts",
        "Lesions found and there",
        "Numbers of pictures; on the diagonal the number is right.",
        lambda axes: _counts(axes, curves["counts"]),
    )


def _precision_recall(axes: Axes, curves: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    for (name, rows), colour in zip(curves.items(), (BLUE, ORANGE), strict=True):
        axes.plot(
            [row["recall"] for row in rows],
            [row["precision"] for row in rows],
            color=colour,
            label=name,
            drawstyle="steps-post",
        )
    unit_square(axes, "recall (share of the lesions)", "precision")
    axes.legend(frameon=False, loc="lower left")


def _counts(axes: Axes, counts: Sequence[Mapping[str, int]]) -> None:
    side = 1 + max(max(row["true"], row["found"]) for row in counts)
    table = np.zeros((side, side))
    for row in counts:
        table[row["true"], row["found"]] = row["n"]
    axes.grid(False)
    axes.imshow(table / np.maximum(1, table.sum(axis=1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(side))
    axes.set_yticks(range(side))
    axes.set_xlabel("found")
    axes.set_ylabel("there")
    for (true, found), count in np.ndenumerate(table):
        if count:
            axes.text(found, true, str(int(count)), ha="center", va="center", fontsize=8)
