"""One self-contained HTML page of a document of figures, with its plots inside; needs the extra `train`."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cds_plugin.errors import Refused
from cds_worker.evaluation.subgroups import FEW_LESIONS

REPORT_NAME = "report.html"
PLOTS_FOLDER = "plots"
EXTRA = "install cds-plugin[train]"
NOTHING: tuple[str, ...] = ()
CLASS_PREFIXES: tuple[str, ...] = ("sensitivity", "specificity", "precision", "auc", "coverage")
FAULT_PREFIXES = ("auc", "noticed", "refused", "psnr_auc", "ood_auc")
SPELT = {
    **{word: word.upper() for word in ("auc", "ap50", "ap75", "ece", "f1", "f2", "psnr", "ood")},
    "iou": "IoU",
    "dice": "Dice",
    "brier": "Brier",
    "jaccard": "Jaccard",
    "db": "dB",
}


def write_report(document: Mapping[str, Any], out: Path) -> Path:
    """Write the page and its plots to `out`; return the page's path.

    Raises Refused where matplotlib is not installed, or `out` can't be written.
    """
    plots = _plots(document)
    page = (
        _environment()
        .get_template(REPORT_NAME)
        .render(
            document=document,
            plots=[
                {"title": each.title, "caption": each.caption, "data": base64.b64encode(each.svg).decode()}
                for each in plots
            ],
            overall=overall(document),
            matrix=matrix(document),
            few=FEW_LESIONS,
        )
    )
    try:
        (out / PLOTS_FOLDER).mkdir(parents=True, exist_ok=True)
        for each in plots:
            (out / PLOTS_FOLDER / f"{each.name}.svg").write_bytes(each.svg)
        (out / REPORT_NAME).write_text(page, encoding="utf-8")
    except OSError as error:
        raise Refused("output_folder", f"{out}: {error.strerror}.", "Choose another --out.") from error
    return out / REPORT_NAME


def overall(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures that are not of one class or one fault."""
    parts = {name for row in matrix(document)["rows"] for name in row["names"]}
    return {name: figure for name, figure in document["figures"].items() if name not in parts}


def matrix(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of each class or fault as a table: a row each, a column for each kind of figure."""
    figures = document["figures"]
    if document["task"] == "classification":
        of, prefixes = "diagnosis", CLASS_PREFIXES
        items: Sequence[str] = document["curves"]["confusion"]["classes"][:-1]
    elif document["task"] == "quality":
        of, prefixes = "fault", FAULT_PREFIXES
        items = [label for label in document["curves"]["verdicts"] if f"noticed_{label}" in figures]
    else:
        of, prefixes, items = "", NOTHING, ()
    columns = [each for each in prefixes if any(f"{each}_{item}" in figures for item in items)]
    return {
        "of": of,
        "columns": columns,
        "rows": [
            {
                "item": item,
                "names": [f"{each}_{item}" for each in columns],
                "cells": [figures.get(f"{each}_{item}") for each in columns],
            }
            for item in items
        ],
    }


def _plots(document: Mapping[str, Any]) -> Sequence[Any]:
    try:
        drawing = import_module("cds_worker.evaluation.plots")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "matplotlib":
            raise
        raise Refused("plots_not_installed", "The package matplotlib is missing.", EXTRA) from error
    plots: Sequence[Any] = drawing.draw_plots(document)
    return plots


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cds_worker.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure_text
    environment.filters["interval"] = interval_text
    environment.filters["words"] = in_words
    return environment


def in_words(name: str) -> str:
    """Return a figure's name as people write it."""
    return " ".join(SPELT.get(word, word) for word in name.split("_"))


def figure_text(figure: Mapping[str, Any] | None) -> str:
    """Return the value to three decimals, or a dash."""
    return "–" if figure is None or figure["value"] is None else f"{figure['value']:.3f}"


def interval_text(figure: Mapping[str, Any] | None) -> str:
    """Return "low to high", or a dash."""
    bounds = None if figure is None else figure["interval_95"]
    return "–" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"
