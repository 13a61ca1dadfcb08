"""The labelled index: a CSV file with the columns path, dx, lesion_id, mask_path, relative to the file."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from cds_plugin.errors import Refused


@dataclass(frozen=True, slots=True)
class Case:
    """One labelled picture; `lesion_id` is the picture's own path where the index names none."""

    path: Path
    dx: str
    lesion_id: str
    mask_path: Path | None


def read_cases(index: Path) -> tuple[Case, ...]:
    """Return every row of `index`; raises Refused for a file that is no such index."""
    try:
        with index.open(newline="", encoding="utf-8-sig") as stream:
            cases = tuple(_case(row, index.parent) for row in csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _refusal(f"{index} can't be read: {error}.") from error
    except KeyError as error:
        raise _refusal(f"{index} has no column {error}.") from error
    if not cases:
        raise _refusal(f"{index} has no rows.")
    return cases


def _case(row: dict[str, str], folder: Path) -> Case:
    mask = row.get("mask_path") or ""
    return Case(
        path=folder / row["path"],
        dx=(row.get("dx") or "").strip().lower(),
        lesion_id=row.get("lesion_id") or row["path"],
        mask_path=folder / mask if mask else None,
    )


def _refusal(message: str) -> Refused:
    return Refused("bad_index", message, "Give a CSV file with the columns path, dx, lesion_id, mask_path.")
