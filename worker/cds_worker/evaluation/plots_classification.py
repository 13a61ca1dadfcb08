"""Plots of a classification: confusion, reliability, ROC, thresholds, decision curve; needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from cds_worker.evaluation.drawing import BLUE, GREEN, GREY, ORANGE, RED, Document, Plot, drawn, unit_square


def classification_plots(document: Document) -> Iterator[Plot]:
    """Yield them; ROC and thresholds only where there are both kinds of lesion."""
    curves = document["curves"]
    yield drawn(
        "confusion",
        "Confusion matrix",
        "Share of each true diagnosis (row) that got each finding (column), with numbers of pictures.",
        lambda axes: _confusion(axes, curves["confusion"]),
    )
    yield drawn(
        "reliability",
        "Reliability",
        "Accuracy of the findings over their probability; on the diagonal probabilities mean what they say.",
        lambda axes: _reliability(axes, curves["reliability"]),
    )
    if all(row["sensitivity"] is not None and row["specificity"] is not None for row in curves["thresholds"]):
        yield drawn(
            "roc",
            "Malignant or premalignant: ROC",
            "Sensitivity over 1 - specificity; the dot is the operating point.",
            lambda axes: _roc(axes, document),
        )
        yield drawn(
            "thresholds",
            "Malignant or premalignant: all thresholds",
            "What each threshold of malignancy gives; the line is the operating point. See thresholds.csv.",
            lambda axes: _thresholds(axes, curves),
        )
    yield drawn(
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
    unit_square(axes, "probability of the finding", "share that is right")
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
        label=f"malignancy of {document['curves']['operating_point']['threshold']:.3g} or more",
    )
    unit_square(axes, "1 - specificity", "sensitivity")
    axes.legend(frameon=False, loc="lower right")


def _thresholds(axes: Axes, curves: Mapping[str, Any]) -> None:
    rows = curves["thresholds"]
    names = {"sensitivity": BLUE, "specificity": GREEN, "precision": ORANGE, "f1": RED, "f2": GREY}
    for name, colour in names.items():
        label = f"{name} (recall)" if name == "sensitivity" else name
        axes.plot([row["threshold"] for row in rows], [row[name] for row in rows], color=colour, label=label)
    axes.axvline(curves["operating_point"]["threshold"], color="black", linewidth=0.8, linestyle=":")
    unit_square(axes, "threshold of malignancy", "value")
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


def _in_words(figure: Mapping[str, Any]) -> str:
    bounds = figure["interval_95"]
    return f"{figure['value']:.3f}" + (f" ({bounds[0]:.3f} to {bounds[1]:.3f})" if bounds else "")
