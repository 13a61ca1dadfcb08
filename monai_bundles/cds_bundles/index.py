"""The data index as frozen rows, and the rules that keep held-out lesions out of training. No torch."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HAM10000 = "ham10000"
TASK1 = "isic2018_task1"
SMARTPHONE = "pad_ufes"
HELD_OUT_FOLD = 0
FOLDS = 5


class LeakFound(ValueError):
    """A lesion or a picture stands on both sides of a split."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One row of the index; paths are absolute."""

    path: Path
    source: str
    """The collection; where the index has no such column, the first folder of the path: ham10000, ..."""
    isic_id: str
    lesion_id: str
    """The lesion's identity; the picture's own where the source gives none."""
    patient_id: str
    """Nothing where the source gives none."""
    dx: str
    """One of CLASSES, or another word or nothing where the source says otherwise."""
    mask_path: Path | None
    official_split: str
    fold: int | None
    width: int
    height: int
    mask_frac: float | None
    histology: bool

    @property
    def held_out(self) -> bool:
        """True for fold 0 of HAM10000, of Task 1 and of the smartphone photographs."""
        return self.fold == HELD_OUT_FOLD


class IndexUnreadable(ValueError):
    """The index lacks a column or holds a value that can't be read."""


def read_index(index: Path) -> tuple[Picture, ...]:
    """Every row of `index` (a CSV file beside the picture folders), or `IndexUnreadable`."""
    try:
        with index.open(newline="", encoding="utf-8") as stream:
            return tuple(_picture(row, index.parent) for row in csv.DictReader(stream))
    except (KeyError, ValueError) as problem:
        raise IndexUnreadable(f"{index}: {type(problem).__name__} {problem}") from problem


def _picture(row: dict[str, str], root: Path) -> Picture:
    return Picture(
        path=root / row["path"],
        source=row.get("source") or Path(row["path"]).parts[0],
        isic_id=row["isic_id"],
        lesion_id=row["lesion_id"] or row["isic_id"] or row["path"],
        patient_id=row.get("patient_id") or "",
        dx=row["dx"],
        mask_path=root / row["mask_path"] if row["mask_path"] else None,
        official_split=row["official_split"],
        fold=int(row["fold"]) if row["fold"] else _dealt_fold(row),
        width=int(row["width"]),
        height=int(row["height"]),
        mask_frac=float(row["mask_frac"]) if row["mask_frac"] else None,
        histology="dx_type=histo" in row["note"],
    )


def _dealt_fold(row: dict[str, str]) -> int | None:
    """The fold of what comes without one: a digest of the picture's or the patient's name deals it out."""
    source = Path(row["path"]).parts[0]
    if source == TASK1:
        name = row["isic_id"]
    elif source == SMARTPHONE:
        name = _patient_in(row["isic_id"])
    else:
        return None
    return hashlib.sha256(name.encode()).digest()[0] % FOLDS


def _patient_in(name: str) -> str:
    """PAD-UFES-20 names its pictures PAT_<patient>_<lesion>_<picture>."""
    return "_".join(name.split("_")[:2])


def patient_of(photograph: Picture) -> str:
    """The patient of a smartphone photograph."""
    return photograph.patient_id or _patient_in(photograph.isic_id)


def from_source(pictures: Iterable[Picture], source: str) -> tuple[Picture, ...]:
    """Those of `pictures` whose first folder is `source`."""
    return tuple(picture for picture in pictures if picture.source == source)


def split(pictures: Iterable[Picture]) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """(training, held-out) parts; raises `LeakFound` when a lesion or picture would stand in both."""
    every = tuple(pictures)
    held_out = tuple(picture for picture in every if picture.held_out)
    forbidden = _identities(held_out)
    training = tuple(p for p in every if not p.held_out and not _identities((p,)) & forbidden)
    check_no_leak(training, held_out)
    return training, held_out


def check_no_leak(training: Iterable[Picture], held_out: Iterable[Picture]) -> None:
    """Raises `LeakFound`, naming some, when a lesion or picture stands on both sides."""
    shared = _identities(training) & _identities(held_out)
    if shared:
        raise LeakFound(f"{len(shared)} identities on both sides of the split, e.g. {sorted(shared)[:3]}")


def leaks(pictures: Iterable[Picture]) -> tuple[str, ...]:
    """Lesions and pictures that stand in two folds, or both in training and held out, sorted."""
    places: dict[str, set[tuple[int | None, bool]]] = {}
    for picture in pictures:
        for name in _identities((picture,)):
            places.setdefault(name, set()).add((picture.fold, picture.held_out))
    return tuple(sorted(name for name, found in places.items() if len(found) > 1))


def _identities(pictures: Iterable[Picture]) -> set[str]:
    return {name for p in pictures for name in (p.lesion_id, p.isic_id, p.patient_id) if name}
