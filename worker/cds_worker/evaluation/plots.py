"""Plots of a document of figures, as SVG; needs matplotlib."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from cds_worker.evaluation.subgroups import FEW_LESIONS

SIZE = (5.6, 4.2)
WIDE = (7.2, 4.2)
ROW_INCHES = 0.26
MARGIN_INCHES = 1.2
BINS = 25
BLUE, ORANGE, GREEN, RED, GREY = "#1f5f8b", "#c8692a", "#3a7d44", "#a63d40", "#8a8a8a"
STYLE: Any = {
    "svg.hashsalt": "cds-plugin",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
}
"""The same document gives the same bytes; letters stay letters, for screen readers and search."""

Document = Mapping[str, Any]
Draw = Callable[[Axes], None]


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot: file name without ending, what it shows in words, and its bytes."""

    name: str
    title: str
    caption: str
    svg: bytes


def draw_plots(document: Document) -> tuple[Plot, ...]:
    """Return the plots that the document's task has."""
    by_task = {
        "classification": _classification,
        "segmentation": _segmentation,
        "instances": _instances,
        "quality": _quality,
    }
    return (*by_task[document["task"]](document), *_subgroup_plots(document))


def _classification(document: Document) -> Iterator[Plot]:
    curves = document["curves"]
    yield _plot(
        "confusion",
        "Confusion matrix",
        "Share of each true diagnosis (row) that got each finding (column), with numbers of pictures.",
        lambda axes: _confusion(axes, curves["confusion"]),
    )
    yield _plot(
        "reliability",
        "Reliability",
        "Accuracy of the findings over their probability; on the diagonal probabilities mean what they say.",
        lambda axes: _reliability(axes, curves["reliability"]),
    )
    if all(row["sensitivity"] is not None and row["specificity"] is not None for row in curves["thresholds"]):
        yield _plot(
            "roc",
            "Malignant or premalignant: ROC",
            "Sensitivity over 1 - specificity; the dot is the operating point.",
            lambda axes: _roc(axes, document),
        )
        yield _plot(
            "thresholds",
            "Malignant or premalignant: all thresholds",
            "What each threshold of malignancy gives; the line is the operating point. See thresholds.csv.",
            lambda axes: _thresholds(axes, curves),
        )
    yield _plot(
        "decision",
        "Decision curve",
        "Net benefit of acting on malignancy, read as a risk (Vickers and Elkin, 2006), with its 95 % band, "
        "at the prevalence of this index.",
        lambda axes: _decision(axes, curves["decision"]),
    )


def _confusion(axes: Axes, confusion: Mapping[str, Any]) -> None:
    table = np.array(confusion["table"], np.float64)
    names = confusion["classes"]
    shares = table / np.maximum(1, table.sum(axis=1, keepdims=True))
    axes.grid(False)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(table)), names[: len(table)])
    axes.set_xlabel("finding")
    axes.set_ylabel("diagnosis")
    for (row, column), count in np.ndenumerate(table):
        if count:
            colour = "white" if shares[row, column] > 0.55 else "black"
            text = f"{shares[row, column]:.0%}\n{int(count)}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)


def _reliability(axes: Axes, reliability: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="perfect")
    for name, colour, marker in (("equal_width", BLUE, "o"), ("equal_mass", ORANGE, "s")):
        rows = reliability[name]
        axes.plot(
            [row["confidence"] for row in rows],
            [row["accuracy"] for row in rows],
            marker=marker,
            color=colour,
            markersize=4,
            linewidth=1,
            label=f"bins of {name.replace('_', ' ')}",
        )
    for row in reliability["equal_width"]:
        axes.annotate(
            str(int(row["n"])), (row["confidence"], row["accuracy"]), (3, -9), textcoords="offset points",
            fontsize=6, color=BLUE,
        )  # fmt: skip
    _unit(axes, "probability of the finding", "share that is right")
    axes.legend(frameon=False, loc="upper left")


def _roc(axes: Axes, document: Document) -> None:
    rows = document["curves"]["thresholds"]
    false = [1.0, *(1 - row["specificity"] for row in rows), 0.0]
    true = [1.0, *(row["sensitivity"] for row in rows), 0.0]
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    axes.plot(false, true, color=BLUE, label=f"AUC {_in_words(document['figures']['malignancy_auc'])}")
    figures = document["figures"]
    axes.plot(
        [1 - figures["malignancy_specificity"]["value"]],
        [figures["malignancy_sensitivity"]["value"]],
        "o",
        color=RED,
        label=f"malignancy of {document['curves']['operating_point']['threshold']:g} or more",
    )
    _unit(axes, "1 - specificity", "sensitivity")
    axes.legend(frameon=False, loc="lower right")


def _thresholds(axes: Axes, curves: Mapping[str, Any]) -> None:
    rows = curves["thresholds"]
    names = {"sensitivity": BLUE, "specificity": GREEN, "precision": ORANGE, "f1": RED, "f2": GREY}
    for name, colour in names.items():
        label = f"{name} (recall)" if name == "sensitivity" else name
        axes.plot([row["threshold"] for row in rows], [row[name] for row in rows], color=colour, label=label)
    axes.axvline(curves["operating_point"]["threshold"], color="black", linewidth=0.8, linestyle=":")
    _unit(axes, "threshold of malignancy", "value")
    axes.legend(frameon=False, fontsize=7)


def _decision(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    risks = [row["threshold"] for row in rows]
    bands = [row["interval_95"] or (row["net_benefit"],) * 2 for row in rows]
    axes.fill_between(risks, [low for low, _ in bands], [high for _, high in bands], color=BLUE, alpha=0.18)
    axes.plot(risks, [row["net_benefit"] for row in rows], color=BLUE, label="acting on the plugin")
    axes.plot(risks, [row["flagging_all"] for row in rows], color=ORANGE, label="acting on all")
    axes.axhline(0, color="black", linewidth=0.8, label="acting on none")
    best = max(row["net_benefit"] for row in rows)
    axes.set_ylim(-0.25 * max(best, 0.04), 1.15 * max(best, 0.04))
    axes.set_xlim(0, 1)
    axes.set_xlabel("risk at which one would act")
    axes.set_ylabel("net benefit")
    axes.legend(frameon=False)


def _segmentation(document: Document) -> Iterator[Plot]:
    for name, values in document["curves"]["distributions"].items():
        yield _plot(
            name.lower().replace(" ", "_"),
            f"{name} of the pictures",
            f"How many pictures have which {name}; the line is the mean.",
            lambda axes, name=name, values=values: _histogram(axes, values, name),  # type: ignore[misc]
        )


def _histogram(axes: Axes, values: Sequence[float], name: str) -> None:
    axes.hist(values, bins=BINS, range=(0, 1), color=BLUE)
    axes.axvline(float(np.mean(values)), color=RED, linewidth=1)
    axes.set_xlim(0, 1)
    axes.set_xlabel(name)
    axes.set_ylabel("pictures")


def _instances(document: Document) -> Iterator[Plot]:
    curves = document["curves"]
    yield _plot(
        "precision_recall",
        "Precision and recall of the finds",
        "A point after each find of all pictures, surest first.",
        lambda axes: _precision_recall(axes, curves["precision_recall"]),
    )
    yield _plot(
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
    _unit(axes, "recall (share of the lesions)", "precision")
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


def _quality(document: Document) -> Iterator[Plot]:
    curves = document["curves"]
    rows = len(curves["verdicts"])
    yield _plot(
        "verdicts",
        "Verdicts by label",
        "Share of each verdict among the pictures of each label.",
        lambda axes: _verdicts(axes, curves["verdicts"]),
        (WIDE[0], MARGIN_INCHES + 2 * ROW_INCHES * rows),
    )
    yield _plot(
        "scores",
        "Score by label",
        f"Each picture's score: {curves['score']}.",
        lambda axes: _scores(axes, curves["scores"]),
        (WIDE[0], MARGIN_INCHES + 2 * ROW_INCHES * rows),
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


def _subgroup_plots(document: Document) -> Iterator[Plot]:
    name = document["headline"][0]
    rows = [
        (f"{facet.replace('_', ' ')}: {group}", found["lesions"], found["figures"][name])
        for facet, groups in document["subgroups"].items()
        for group, found in groups.items()
        if found["figures"][name]["value"] is not None
    ]
    if rows:
        yield _plot(
            "subgroups",
            f"Subgroups: {name.replace('_', ' ')}",
            f"With 95 % intervals; grey: fewer than {FEW_LESIONS} lesions. The line is the figure of all.",
            lambda axes: _forest(axes, rows, document["figures"][name]["value"]),
            (WIDE[0], MARGIN_INCHES + ROW_INCHES * len(rows)),
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


def _unit(axes: Axes, x: str, y: str) -> None:
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.03)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _in_words(figure: Mapping[str, Any]) -> str:
    bounds = figure["interval_95"]
    return f"{figure['value']:.3f}" + (f" ({bounds[0]:.3f} to {bounds[1]:.3f})" if bounds else "")


def _plot(name: str, title: str, caption: str, draw: Draw, size: tuple[float, float] = SIZE) -> Plot:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        stream = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return Plot(name, title, caption, stream.getvalue())
