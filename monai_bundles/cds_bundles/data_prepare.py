"""One index out of many collections: groups that must stay together, stratified folds, and a leak report."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from cds_bundles.classes import CLASSES
from cds_bundles.data_folders import Record, records
from cds_bundles.index import FOLDS, grouped
from cds_bundles.near_duplicates import alike, thumbnails

SEED = 2018
COLUMNS = (
    "path",
    "isic_id",
    "lesion_id",
    "patient_id",
    "dx",
    "mask_path",
    "source",
    "dataset",
    "official_split",
    "fold",
    "width",
    "height",
    "geometry",
    "modality",
    "note",
    "mask_frac",
    "age",
    "sex",
    "site",
)


class NothingToPrepare(ValueError):
    """The folders hold no picture that their tables speak of."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was written: pictures a fold and class, and look-alikes that no identifier ties together."""

    pictures: int
    groups: int
    by_fold: tuple[Counter[str], ...]
    look_alikes: tuple[tuple[str, str], ...]


def prepare(folders: Sequence[Path], index: Path, folds: int = FOLDS, seed: int = SEED) -> Prepared:
    """Writes `index` (CSV, paths relative to it) of all pictures in `folders`.

    Pictures of one lesion or patient, and pictures that look the same, share a fold. Raises `FolderUnknown`
    for a folder of unknown layout, `NothingToPrepare` where nothing was found, `FileNotFoundError` for a
    picture that can't be read.
    """
    found = [(folder.resolve().name, record) for folder in folders for record in records(folder)]
    if not found:
        raise NothingToPrepare(f"no picture with a row in {', '.join(map(str, folders))}")
    rows = [record for _, record in found]
    pairs = list(alike(thumbnails(record.path for record in rows)))
    groups = grouped([_identities(row) for row in rows], pairs)
    parts = dealt([record.dx if record.dx in CLASSES else "other" for record in rows], groups, folds, seed)
    index.parent.mkdir(parents=True, exist_ok=True)
    with index.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for (source, record), part in zip(found, parts, strict=True):
            writer.writerow(_row(source, record, part, index.parent))
    strangers = tuple(
        (rows[i].name, rows[j].name) for i, j in pairs if not _identities(rows[i]) & _identities(rows[j])
    )
    by_fold = [Counter[str]() for _ in range(folds)]
    for record, part in zip(rows, parts, strict=True):
        by_fold[part][record.dx or "unknown"] += 1
    return Prepared(len(rows), len(set(groups)), tuple(by_fold), strangers)


def _identities(record: Record) -> set[str]:
    named = (("lesion", record.lesion_id), ("patient", record.patient_id), ("picture", record.name))
    return {f"{kind} {name}" for kind, name in named if name}


def dealt(classes: Sequence[str], groups: Sequence[int], folds: int, seed: int) -> list[int]:
    """The fold of each row: groups whole, classes as evenly as they allow."""
    if len(set(groups)) < folds:
        raise NothingToPrepare(f"{len(set(groups))} groups of pictures can't be dealt into {folds} folds")
    if max(Counter(classes).values()) < folds:
        raise NothingToPrepare(
            f"no class has {folds} pictures, one for each fold: ask for fewer with --folds"
        )
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    parts = np.zeros(len(classes), int)
    for number, (_, held_out) in enumerate(
        splitter.split(np.zeros(len(classes)), list(classes), list(groups))
    ):
        parts[held_out] = number
    return [int(part) for part in parts]


def _row(source: str, record: Record, fold: int, base: Path) -> dict[str, object]:
    picture = cv2.imread(str(record.path), cv2.IMREAD_COLOR)
    if picture is None:
        raise FileNotFoundError(record.path)
    mask = record.mask_path and cv2.imread(str(record.mask_path), cv2.IMREAD_GRAYSCALE)
    return {
        "path": os.path.relpath(record.path, base),
        "isic_id": record.name,
        "lesion_id": record.lesion_id,
        "patient_id": record.patient_id,
        "dx": record.dx,
        "mask_path": os.path.relpath(record.mask_path, base) if record.mask_path else "",
        "source": source,
        "dataset": source,
        "official_split": "",
        "fold": fold,
        "width": picture.shape[1],
        "height": picture.shape[0],
        "geometry": "as published",
        "modality": "dermoscopy",
        "note": "dx_type=histo" if record.histology else "",
        "mask_frac": "" if mask is None else round(float((np.asarray(mask) > 127).mean()), 4),
        "age": record.age,
        "sex": record.sex,
        "site": record.site,
    }
