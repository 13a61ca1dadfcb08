"""The data index as frozen rows, and the rules that keep held-out lesions out of training. No torch."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

HAM10000 = "ham10000"
TASK1 = "isic2018_task1"
SMARTPHONE = "pad_ufes"
BACKGROUND_SKIN = "background_skin"
NON_SKIN = "nonskin"
HELD_OUT_FOLD = 0
"""The fold that is held out where nothing else is said."""
FOLDS = 5
HELD_OUT_WORDS = ("test", "held out", "held_out", "holdout")
"""Words in the column `split` (or `official_split`) that hold a row without a fold out."""

NO_LESION, NO_SKIN, NO_DERMOSCOPY = "no_lesion", "non_skin", "non_dermoscopic"
OTHER_PICTURES = (NO_LESION, NO_SKIN, NO_DERMOSCOPY)
"""Words in the column `dx` for pictures that are no dermoscopy of a lesion: for the quality gate."""


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
    fold_is_dealt: bool = False
    """True where the index gives no fold and a digest of the picture's name did."""
    modality: str = ""
    """dermoscopy for lesions through a dermatoscope; nothing where the index does not say."""

    @property
    def held_out(self) -> bool:
        """True for what is held out where no other fold is named."""
        return self.held_out_with(HELD_OUT_FOLD)

    def held_out_with(self, fold: int) -> bool:
        """True where `fold` is held out and the picture is in it, or its split says so."""
        if self.fold is None:
            return self.official_split.strip().lower() in HELD_OUT_WORDS
        return self.fold == fold

    @property
    def is_dermoscopy(self) -> bool:
        """True where it may show a lesion through a dermatoscope."""
        return self.modality in ("", "dermoscopy") and self.dx not in OTHER_PICTURES

    @property
    def is_photograph(self) -> bool:
        """True for skin as an ordinary camera sees it."""
        return self.modality.startswith("clinical") or self.dx == NO_DERMOSCOPY


class IndexUnreadable(ValueError):
    """The index lacks a column or holds a value that can't be read."""


def index_file(data: Path) -> Path:
    """The index itself: `data`, or index.csv in the folder `data`."""
    return data / "index.csv" if data.is_dir() else data


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
        isic_id=row.get("isic_id") or "",
        lesion_id=row.get("lesion_id") or row.get("isic_id") or row["path"],
        patient_id=row.get("patient_id") or "",
        dx=row.get("dx") or "",
        mask_path=root / row["mask_path"] if row.get("mask_path") else None,
        official_split=row.get("split") or row.get("official_split") or "",
        fold=int(row["fold"]) if row.get("fold") else _dealt_fold(row),
        fold_is_dealt=not row.get("fold"),
        modality=row.get("modality") or "",
        width=int(row.get("width") or 0),
        height=int(row.get("height") or 0),
        mask_frac=float(row["mask_frac"]) if row.get("mask_frac") else None,
        histology="dx_type=histo" in (row.get("note") or ""),
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


def split(
    pictures: Iterable[Picture], fold: int = HELD_OUT_FOLD
) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """(training, held-out) parts; raises `LeakFound` when a lesion or picture would stand in both.

    What shares a lesion, a patient or a name with a held-out picture leaves the training side.
    """
    every = tuple(pictures)
    held_out = tuple(picture for picture in every if picture.held_out_with(fold))
    forbidden = _identities(held_out)
    training = tuple(p for p in every if not p.held_out_with(fold) and not _identities((p,)) & forbidden)
    check_no_leak(training, held_out)
    return training, held_out


def split_index(data: Path, fold: int = HELD_OUT_FOLD) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """(training, held-out) dermoscopy of lesions in the index `data`, or in index.csv of that folder."""
    return split((p for p in read_index(index_file(data)) if p.is_dermoscopy), fold)


def reported(held_out: Sequence[Picture]) -> tuple[Picture, ...]:
    """Those of `held_out` that figures rest on: with a fold or split of the index's own, if there are any."""
    given = tuple(picture for picture in held_out if not picture.fold_is_dealt)
    return given or tuple(held_out)


def validation_part(
    training: Sequence[Picture], share: float, seed: int
) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """`training` in two: what is trained on, and about `share` (0 to 1) of each class for looking on the way.

    Lesions, patients and pictures of one name stay whole. The same lot for the same seed, whatever the order.
    """
    groups = grouped([_identities((picture,)) for picture in training], ())
    members: dict[int, list[Picture]] = {}
    for group, picture in zip(groups, training, strict=True):
        members.setdefault(group, []).append(picture)
    by_class: dict[str, list[list[Picture]]] = {}
    for pictures in members.values():
        by_class.setdefault(min(p.dx for p in pictures), []).append(pictures)
    chosen: set[Path] = set()
    for of_class in by_class.values():
        of_class.sort(key=lambda pictures: _lot(pictures, seed))
        for pictures in of_class[: math.ceil(share * len(of_class))]:
            chosen.update(picture.path for picture in pictures)
    rest = tuple(picture for picture in training if picture.path not in chosen)
    looked_at = tuple(picture for picture in training if picture.path in chosen)
    check_no_leak(rest, looked_at)
    return rest, looked_at


def _lot(pictures: Sequence[Picture], seed: int) -> str:
    name = min(picture.isic_id or picture.lesion_id for picture in pictures)
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()


def grouped(identities: Sequence[set[str]], pairs: Iterable[tuple[int, int]]) -> list[int]:
    """A group number for each set of names: those joined by a name or a pair share it (union-find)."""
    parent = list(range(len(identities)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    first: dict[str, int] = {}
    for place, names in enumerate(identities):
        for name in sorted(names):
            parent[root(place)] = root(first.setdefault(name, place))
    for one, other in pairs:
        parent[root(one)] = root(other)
    return [root(place) for place in range(len(identities))]


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
    named = ((k, n) for p in pictures for k, n in zip(KINDS_OF_NAME, _names(p), strict=True))
    return {f"{kind} {name}" for kind, name in named if name}


def _names(picture: Picture) -> tuple[str, str, str]:
    return picture.lesion_id, picture.isic_id, picture.patient_id


KINDS_OF_NAME = ("lesion", "picture", "patient")
