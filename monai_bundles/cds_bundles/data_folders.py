"""Reads collections as their publishers ship them, and a site's own, into rows of one kind."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cds_bundles.classes import CLASSES

PICTURES = (".jpg", ".jpeg", ".png")
OWN_CSV = "pictures.csv"
"""A site's own table: path, dx, lesion_id, and if known patient_id, mask_path, age, sex, site, dx_type."""

DIAGNOSES = {
    "actinic keratosis": "akiec",
    "akiec": "akiec",
    "ak": "akiec",
    "bowen's disease": "akiec",
    "basal cell carcinoma": "bcc",
    "bcc": "bcc",
    "pigmented benign keratosis": "bkl",
    "seborrheic keratosis": "bkl",
    "solar lentigo": "bkl",
    "lichenoid keratosis": "bkl",
    "bkl": "bkl",
    "dermatofibroma": "df",
    "df": "df",
    "melanoma": "mel",
    "melanoma, nos": "mel",
    "mel": "mel",
    "nevus": "nv",
    "melanocytic nevus": "nv",
    "nv": "nv",
    "vascular lesion": "vasc",
    "angioma": "vasc",
    "vasc": "vasc",
}
"""Words of the publishers for the seven classes, lower case; any other diagnosis keeps its own word."""

Row = Mapping[str, str]


class FolderUnknown(ValueError):
    """A folder that is laid out like none of the known collections."""


@dataclass(frozen=True, slots=True)
class Record:
    """A picture and what its publisher says of it; empty where nothing is said."""

    path: Path
    name: str
    lesion_id: str = ""
    patient_id: str = ""
    dx: str = ""
    mask_path: Path | None = None
    histology: bool = False
    age: str = ""
    sex: str = ""
    site: str = ""


def records(folder: Path) -> tuple[Record, ...]:
    """Every picture of `folder` that its tables speak of; `FolderUnknown` where no layout fits."""
    for looks_like, read in LAYOUTS:
        if looks_like(folder):
            return tuple(read(folder))
    raise FolderUnknown(
        f"{folder} is neither HAM10000 (HAM10000_metadata), nor an ISIC challenge (*_GroundTruth*), "
        f"nor an ISIC archive download (metadata.csv), nor a folder with {OWN_CSV}"
    )


def class_of(word: str) -> str:
    """The key in CLASSES that `word` stands for, or `word` itself."""
    return DIAGNOSES.get(word.strip().lower(), word.strip().lower())


def _ham10000(folder: Path) -> Iterator[Record]:
    """Tschandl et al. 2018, as Harvard Dataverse ships it: metadata, two image parts, segmentations."""
    pictures, masks = _pictures(folder), _masks(folder)
    for row in _rows(_only(folder, "HAM10000_metadata*")):
        name = row["image_id"]
        if name in pictures:
            yield Record(
                path=pictures[name],
                name=name,
                lesion_id=row["lesion_id"],
                dx=class_of(row["dx"]),
                mask_path=masks.get(name),
                histology=row.get("dx_type", "") == "histo",
                age=row.get("age", ""),
                sex=row.get("sex", ""),
                site=row.get("localization", ""),
            )


def _isic_challenge(folder: Path) -> Iterator[Record]:
    """ISIC 2018-2020: pictures, one-hot or named ground truth, lesion groupings, metadata, masks."""
    facts: dict[str, dict[str, str]] = {}
    for table in sorted(folder.rglob("*.csv")):
        for row in _rows(table):
            name = row.get("image") or row.get("image_name") or ""
            facts.setdefault(name, {}).update({**row, **_one_hot(row)})
    masks = _masks(folder)
    for name, path in _pictures(folder).items():
        row = facts.get(name, {})
        if row or name in masks:
            yield Record(
                path=path,
                name=name,
                lesion_id=row.get("lesion_id", ""),
                patient_id=row.get("patient_id", ""),
                dx=class_of(row.get("dx") or row.get("diagnosis", "")),
                mask_path=masks.get(name),
                histology="histopathology" in row.get("diagnosis_confirm_type", ""),
                age=row.get("age_approx", ""),
                sex=row.get("sex", ""),
                site=row.get("anatom_site_general") or row.get("anatom_site_general_challenge", ""),
            )


def _one_hot(row: Row) -> dict[str, str]:
    marked = [key for key, value in row.items() if key and key.isupper() and _is_one(value)]
    return {"dx": marked[0]} if marked else {}


def _is_one(value: str | None) -> bool:
    try:
        return float(value or 0) == 1.0
    except ValueError:
        return False


def _isic_archive(folder: Path) -> Iterator[Record]:
    """A download of the ISIC archive: metadata.csv beside the pictures."""
    pictures, masks = _pictures(folder), _masks(folder)
    for row in _rows(_only(folder, "metadata.csv")):
        name = row.get("isic_id", "")
        if name in pictures:
            finest = next((row[key] for key in _DIAGNOSIS_COLUMNS if row.get(key)), "")
            yield Record(
                path=pictures[name],
                name=name,
                lesion_id=row.get("lesion_id", ""),
                patient_id=row.get("patient_id", ""),
                dx=class_of(finest),
                mask_path=masks.get(name),
                histology=row.get("diagnosis_confirm_type", "") == "histopathology",
                age=row.get("age_approx", ""),
                sex=row.get("sex", ""),
                site=row.get("anatom_site_general", ""),
            )


_DIAGNOSIS_COLUMNS = ("diagnosis", "diagnosis_3", "diagnosis_2", "diagnosis_1")


def _own(folder: Path) -> Iterator[Record]:
    """A site's own folder: `pictures.csv` with paths relative to it."""
    for row in _rows(folder / OWN_CSV):
        yield Record(
            path=folder / row["path"],
            name=Path(row["path"]).stem,
            lesion_id=row.get("lesion_id") or "",
            patient_id=row.get("patient_id") or "",
            dx=class_of(row.get("dx") or ""),
            mask_path=folder / row["mask_path"] if row.get("mask_path") else None,
            histology=(row.get("dx_type") or "") == "histo",
            age=row.get("age") or "",
            sex=row.get("sex") or "",
            site=row.get("site") or "",
        )


Reader = Callable[[Path], Iterator[Record]]
LAYOUTS: tuple[tuple[Callable[[Path], bool], Reader], ...] = (
    (lambda folder: (folder / OWN_CSV).is_file(), _own),
    (lambda folder: any(folder.rglob("HAM10000_metadata*")), _ham10000),
    (lambda folder: any(folder.rglob("*_GroundTruth*")), _isic_challenge),
    (lambda folder: (folder / "metadata.csv").is_file(), _isic_archive),
)


def _pictures(folder: Path) -> dict[str, Path]:
    """Name -> picture, masks and super-pixels left out."""
    found = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in PICTURES)
    return {path.stem: path for path in found if not path.stem.endswith(("_segmentation", "_superpixels"))}


def _masks(folder: Path) -> dict[str, Path]:
    ending = "_segmentation"
    found = (path for path in sorted(folder.rglob(f"*{ending}.png")) if not path.name.startswith("._"))
    return {path.stem.removesuffix(ending): path for path in found}


def _rows(table: Path) -> Iterator[dict[str, str]]:
    with table.open(newline="", encoding="utf-8-sig") as stream:
        yield from csv.DictReader(stream)


def _only(folder: Path, pattern: str) -> Path:
    return next(path for path in sorted(folder.rglob(pattern)) if path.is_file())


def known(record: Record) -> bool:
    """True where the diagnosis is one of the seven."""
    return record.dx in CLASSES
