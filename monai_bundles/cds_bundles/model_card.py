"""Keeps the figures of a bundle's metadata.json and those of its docs/README.md the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- figures: from configs/metadata.json -->", "<!-- end of figures -->"
HEADER = "| figure | value | 95 % interval | n |\n|---|---|---|---|"

Figures = dict[str, dict[str, Any]]
"""Name of a figure -> value, low, high, n, split."""


class CardIncomplete(ValueError):
    """A README without the two lines between which its figures stand."""


def flattened(report: Mapping[str, Any], split: str = "") -> Figures:
    """Every figure of an evaluation's report, however deep, by its path ("all, sensitivity, mel").

    A figure is a mapping with `value` and `n`, and `low` and `high` or `interval_95`; it belongs to the
    nearest `split` above it.
    """
    return {", ".join(path).replace("_", " "): figure for path, figure in _figures(report, (), split)}


def _figures(
    report: Mapping[str, Any], path: tuple[str, ...], split: str
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    split = str(report.get("split", split))
    if "value" in report:
        low, high = report.get("interval_95") or (report.get("low"), report.get("high"))
        yield path, {"value": report["value"], "low": low, "high": high, "n": report["n"], "split": split}
        return
    for name, part in report.items():
        if isinstance(part, Mapping):
            yield from _figures(part, (*path, name), split)


def add_figures(bundle: Path, section: str, report: Mapping[str, Any]) -> None:
    """Writes a report's figures into the bundle's metadata.json, in place of those of `section`."""
    path = bundle / "configs" / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    metadata["eval_metrics"] = {**metadata["eval_metrics"], section: flattened(report)}
    path.write_text(json.dumps(metadata, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def rewrite(bundle: Path) -> None:
    """Puts the figures of metadata.json into docs/README.md."""
    path = bundle / "docs" / "README.md"
    path.write_text(with_figures(bundle), encoding="utf-8")


def is_current(bundle: Path) -> bool:
    """True where docs/README.md shows just the figures of metadata.json."""
    return with_figures(bundle) == (bundle / "docs" / "README.md").read_text(encoding="utf-8")


def with_figures(bundle: Path) -> str:
    """The README with the tables of metadata.json; raises `CardIncomplete` where there is no place."""
    card = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    between = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if not between.search(card):
        raise CardIncomplete(f"{bundle.name}/docs/README.md lacks the lines {BEGIN!r} and {END!r}")
    tables = "\n\n".join(_table(title, part) for title, part in metadata["eval_metrics"].items())
    return between.sub(lambda _: f"{BEGIN}\n\n{tables}\n\n{END}", card)


def _table(title: str, part: Figures) -> str:
    """One table for each split that the figures of a section rest on."""
    splits = dict.fromkeys(figure["split"] for figure in part.values())
    tables = (_rows_of(split, part) for split in splits)
    return f"### {title}\n\n" + "\n\n".join(tables)


def _rows_of(split: str, part: Figures) -> str:
    rows = (_line(name, figure) for name, figure in part.items() if figure["split"] == split)
    return f"Split: {split}.\n\n{HEADER}\n" + "\n".join(rows)


def _line(name: str, figure: Mapping[str, Any]) -> str:
    interval = "-" if figure["low"] is None else f"{figure['low']:.3f} - {figure['high']:.3f}"
    return f"| {name} | {figure['value']:.3f} | {interval} | {figure['n']} |"
