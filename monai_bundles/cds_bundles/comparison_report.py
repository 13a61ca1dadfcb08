"""The comparison's figures as tables in docs/models.md, between two lines for each, and as a plot."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

BEGIN, END = "<!-- {0}: from models/{0}.json -->", "<!-- end of {0} -->"
COLUMNS = (
    ("balanced_accuracy", "balanced accuracy"),
    ("gain_in_balanced_accuracy", "gain over plain"),
    ("accuracy", "accuracy"),
    ("malignancy_auc", "malignancy AUC"),
    ("specificity_at_95_sensitivity", "specificity at 95 % sensitivity"),
    ("melanoma_sensitivity", "melanoma sensitivity"),
    ("ece", "ECE"),
)
WITH_INTERVAL = ("balanced_accuracy", "gain_in_balanced_accuracy", "malignancy_auc")

Compared = Mapping[str, Mapping[str, Any]]


class NoPlaceForTable(ValueError):
    """The document lacks the two lines between which a table stands."""


def write(document: str, *reports: str) -> None:
    """Puts the table of every report (NAME.json) into `document`, and its plot beside the report."""
    page = Path(document)
    text = page.read_text(encoding="utf-8")
    for report in map(Path, reports):
        found = json.loads(report.read_text(encoding="utf-8"))
        text = with_table(text, report.stem, tables(found))
        plot(found["comparison"], report.with_suffix(".svg"))
    page.write_text(text, encoding="utf-8")


def with_table(text: str, name: str, table: str) -> str:
    """`text` with `table` between the two lines of `name`; raises `NoPlaceForTable`."""
    begin, end = BEGIN.format(name), END.format(name)
    between = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    if not between.search(text):
        raise NoPlaceForTable(f"there are no lines {begin!r} and {end!r}")
    return between.sub(lambda _: f"{begin}\n\n{table}\n\n{end}", text)


def tables(report: Mapping[str, Any]) -> str:
    """The variants, best first, and the folds of the best one where the report has them."""
    parts = [_configuration(report), comparison_table(report["comparison"])]
    if folds := report.get("folds"):
        parts.append(folds_table(folds))
    return "\n\n".join(parts)


def _configuration(report: Mapping[str, Any]) -> str:
    how = report["configuration"]
    first = next(iter(report["comparison"].values()))["balanced_accuracy"]
    return (
        f"{how['network']}, start `{how['start']}`, crops of {how['crop_px']} px, {how['steps']} steps of "
        f"{how['batch']}, rate {how['learning_rate']}, label smoothing {how['label_smoothing']}, seed "
        f"{how['seed']}. n {first['n']} pictures of {first['lesion_ids']} lesions; {first['split']}."
    )


def comparison_table(compared: Compared) -> str:
    """One row a variant, the highest balanced accuracy first."""
    ranked = sorted(compared.items(), key=lambda item: -item[1]["balanced_accuracy"]["value"])
    head = "| way | " + " | ".join(title for _, title in COLUMNS) + " |"
    rows = [f"| {name} | {' | '.join(_cell(found, key) for key, _ in COLUMNS)} |" for name, found in ranked]
    return "\n".join([head, "|---" * (len(COLUMNS) + 1) + "|", *rows])


def _cell(found: Mapping[str, Any], key: str) -> str:
    figure = found.get(key)
    if figure is None:
        return "-"
    signed = "+" if key.startswith("gain") else ""
    value = f"{figure['value']:{signed}.3f}"
    if key not in WITH_INTERVAL or figure["interval_95"] is None:
        return value
    low, high = figure["interval_95"]
    return f"{value} ({low:{signed}.3f} to {high:{signed}.3f})"


def folds_table(folds: Mapping[str, Any]) -> str:
    """One row a fold, then all together."""
    shown = [column for column in COLUMNS if not column[0].startswith("gain")]
    head = f"| {folds['variant']} | n | " + " | ".join(title for _, title in shown) + " |"
    rows = [_fold_row(f"fold {fold}", found, shown) for fold, found in folds["each"].items()]
    if all_folds := folds.get("together"):
        rows.append(_fold_row("all, each picture held out once", all_folds, shown))
    if means := folds.get("mean_of_folds"):
        cells = [f"{means[key]['mean']:.3f} ± {means[key]['sd']:.3f}" for key, _ in shown]
        rows.append(f"| mean ± standard deviation of the folds | | {' | '.join(cells)} |")
    return "\n".join([head, "|---" * (len(shown) + 2) + "|", *rows])


def _fold_row(name: str, found: Mapping[str, Any], shown: list[tuple[str, str]]) -> str:
    cells = " | ".join(_cell(found, key) for key, _ in shown)
    return f"| {name} | {found['balanced_accuracy']['n']} | {cells} |"


def plot(compared: Compared, path: Path) -> None:
    """Balanced accuracy of every variant with its interval, as SVG that is the same for the same figures."""
    mpl.rcParams["svg.hashsalt"] = "cds"
    ranked = sorted(compared.items(), key=lambda item: item[1]["balanced_accuracy"]["value"])
    figure = Figure(figsize=(7, 0.5 + 0.35 * len(ranked)), layout="constrained")
    axes = figure.subplots()
    for row, (_, found) in enumerate(ranked):
        estimate = found["balanced_accuracy"]
        low, high = estimate["interval_95"] or (estimate["value"],) * 2
        axes.plot([low, high], [row, row], color="#30638e", linewidth=2)
        axes.plot(estimate["value"], row, "o", color="#30638e")
    axes.set_yticks(range(len(ranked)), [name for name, _ in ranked])
    axes.set_xlabel("balanced accuracy, 95 % interval by lesion")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, metadata={"Date": None})
