"""The plots of a document of figures; needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from cds_worker.evaluation.drawing import BLUE, GREY, Document, Plot, drawn, tall
from cds_worker.evaluation.plots_classification import classification_plots
from cds_worker.evaluation.plots_outlines import instances_plots, segmentation_plots
from cds_worker.evaluation.plots_quality import quality_plots
from cds_worker.evaluation.subgroups import FEW_LESIONS


def draw_plots(document: Document) -> tuple[Plot, ...]:
    """Return the plots that the document's task has."""
    by_task = {
        "classification": classification_plots,
        "segmentation": segmentation_plots,
        "instances": instances_plots,
        "quality": quality_plots,
    }
    return (*by_task[document["task"]](document), *_subgroup_plots(document))


def _subgroup_plots(document: Document) -> Iterator[Plot]:
    name = document["headline"][0]
    rows = [
        (f"{facet.replace('_', ' ')}: {group}", found["lesion_ids"], found["figures"][name])
        for facet, groups in document["subgroups"].items()
        for group, found in groups.items()
        if found["figures"][name]["value"] is not None
    ]
    if rows:
        yield drawn(
            "subgroups",
            f"Subgroups: {name.replace('_', ' ')}",
            f"With 95 % intervals; grey: fewer than {FEW_LESIONS} lesions. The line is the figure of all.",
            lambda axes: _forest(axes, rows, document["figures"][name]["value"]),
            tall(len(rows)),
        )


def _forest(axes: Axes, rows: Sequence[tuple[str, int, Mapping[str, Any]]], overall: float) -> None:
    axes.axvline(overall, color=GREY, linewidth=1)
    for place, (_, lesions, figure) in enumerate(rows):
        colour = GREY if lesions < FEW_LESIONS else BLUE
        low, high = figure["interval_95"] or (figure["value"],) * 2
        axes.plot([low, high], [place, place], color=colour, linewidth=1.4)
        axes.plot([figure["value"]], [place], "o", color=colour, markersize=4)
    axes.set_yticks(range(len(rows)), [f"{label} (n = {figure['n']})" for label, _, figure in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.02)
