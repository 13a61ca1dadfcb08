"""The labelled index: a CSV file whose paths are relative to it; every row is one picture with its labels."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cds_plugin.errors import Refused

SITE_COLUMNS = ("site", "localization", "anatom_site_general")
HISTOLOGY_COLUMNS = ("histology", "dx_type", "diagnosis_confirm_type")
"""The publishers' names for the same thing: HAM10000's, then the ISIC archive's."""
CONFIRMED = frozenset({"histo", "histology", "histopathology", "yes", "true", "1"})
UNKNOWN = frozenset({"", "unknown", "nan", "none", "n/a", "na"})
SEXES = {"m": "male", "f": "female"}
AGE = re.compile(r"(\d{1,3}(?:\.\d+)?)\+?")
"""In years; the ISIC archive writes 85+ for the oldest."""
NOT_STATED = "not stated"
SPLITS_NAMED = 5

Cells = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Case:
    """One labelled picture; `lesion_id` is the picture's own path where the index names none."""

    path: Path
    dx: str
    lesion_id: str
    mask_path: Path | None
    quality: str = ""
    patient_id: str = ""
    age: float | None = None
    sex: str = ""
    site: str = ""
    histology: bool | None = None
    split: str = ""


def read_cases(index: Path, where: Mapping[str, str] | None = None) -> tuple[Case, ...]:
    """Return the rows of `index` whose columns equal `where`; raises Refused for a file that is no index."""
    rows = _rows(index)
    _check_columns(index, rows, where or {})
    chosen = [
        (line, row)
        for line, row in enumerate(rows, start=2)
        if all(row[column] == value for column, value in (where or {}).items())
    ]
    if not chosen:
        raise _refusal(f"{index} has no rows" + (" with these values." if where else "."))
    return tuple(_case(row, f"{index}, line {line}", index.parent) for line, row in chosen)


def split_of(cases: Sequence[Case]) -> str:
    """Return which split the cases are of, in words; "not stated" where the index does not say."""
    names = sorted({case.split or NOT_STATED for case in cases})
    if len(names) > SPLITS_NAMED:
        return f"{len(names)} splits mixed"
    return ", ".join(names)


def _rows(index: Path) -> list[dict[str, str]]:
    try:
        with index.open(newline="", encoding="utf-8-sig") as stream:
            return [_cells(row) for row in csv.DictReader(stream)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _refusal(f"{index} can't be read: {error}.") from error


def _cells(row: Mapping[str | None, str | None]) -> dict[str, str]:
    """Return the cells by column; a short row has empty ones, a long one loses what has no column."""
    return {column.strip(): (value or "").strip() for column, value in row.items() if column is not None}


def _check_columns(index: Path, rows: Sequence[Cells], where: Mapping[str, str]) -> None:
    if not rows:
        raise _refusal(f"{index} has no rows.")
    for column in ("path", *where):
        if column not in rows[0]:
            raise _refusal(f"{index} has no column {column!r}, only {', '.join(rows[0])}.")


def _case(row: Cells, place: str, folder: Path) -> Case:
    if not row["path"]:
        raise _refusal(f"{place}: the path is empty.")
    mask = row.get("mask_path", "")
    sex = _known(row.get("sex", "")).lower()
    return Case(
        path=folder / row["path"],
        dx=_known(row.get("dx", "")).lower(),
        lesion_id=row.get("lesion_id") or row["path"],
        mask_path=folder / mask if mask else None,
        quality=_known(row.get("quality", "")).lower(),
        patient_id=row.get("patient_id", ""),
        age=_age(_known(row.get("age") or row.get("age_approx", "")), place),
        sex=SEXES.get(sex, sex),
        site=_known(_first(row, SITE_COLUMNS)).lower(),
        histology=_histology(_known(_first(row, HISTOLOGY_COLUMNS))),
        split=_split(row),
    )


def _first(row: Cells, columns: Sequence[str]) -> str:
    return next((row[each] for each in columns if row.get(each)), "")


def _known(value: str) -> str:
    return "" if value.lower() in UNKNOWN else value


def _age(value: str, place: str) -> float | None:
    found = AGE.fullmatch(value)
    if value and found is None:
        raise _refusal(f"{place}: the age is not a number of years.")
    return float(found.group(1)) if found else None


def _histology(value: str) -> bool | None:
    return value.lower() in CONFIRMED if value else None


def _split(row: Cells) -> str:
    if row.get("split"):
        return row["split"]
    return f"fold {row['fold']}" if row.get("fold") else ""


def _refusal(message: str) -> Refused:
    return Refused("bad_index", message, "Give a CSV file with the columns path, dx, lesion_id, mask_path.")
