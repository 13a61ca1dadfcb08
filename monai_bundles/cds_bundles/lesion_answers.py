"""Raw answers of a classifier for many lesions and what is known of each; kept on disk by network."""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cds_bundles.classification import LesionLook, Member
from cds_bundles.classifier_data import Lesion, read_rgb
from cds_bundles.clinical_facts import KnownFacts
from cds_bundles.skin_tone import skin_tone

Places = NDArray[np.intp]
UNKNOWN = frozenset({"", "unknown", "nan"})
SITE_COLUMNS = ("site", "localization", "anatom_site_general")


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Raw answers: logits (N, M, 7) by network, features (N, D) of the first, true columns (N,), lesions."""

    logits: NDArray[np.float32]
    features: NDArray[np.float32]
    labels: Places
    groups: tuple[str, ...]
    confirmed: NDArray[np.bool_]
    """True where histology confirmed the diagnosis."""
    facts: tuple[KnownFacts, ...]

    def of(self, chosen: NDArray[np.bool_]) -> Seen:
        """The cases that are `chosen`."""
        places = np.flatnonzero(chosen)
        return Seen(
            self.logits[places],
            self.features[places],
            self.labels[places],
            tuple(self.groups[place] for place in places),
            self.confirmed[places],
            tuple(self.facts[place] for place in places),
        )

    def by(self, members: Sequence[int]) -> Seen:
        """The same cases with the answers of some of the networks."""
        return Seen(
            self.logits[:, list(members)],
            self.features,
            self.labels,
            self.groups,
            self.confirmed,
            self.facts,
        )


def see(look: LesionLook, lesions: Sequence[Lesion], facts: Mapping[str, KnownFacts], kept: Path) -> Seen:
    """Raw answers for `lesions`, each with the box of its reference mask.

    `facts`: by the picture's ISIC name. What a network says is kept in the folder `kept` and not asked again.
    """
    answers = [_answers(look, member, lesions, kept) for member in look.members]
    return Seen(
        np.stack([logits for logits, _ in answers], axis=1),
        answers[0][1],
        np.array([lesion.label for lesion in lesions]),
        tuple(lesion.picture.lesion_id for lesion in lesions),
        np.array([lesion.picture.histology for lesion in lesions]),
        tuple(facts.get(lesion.picture.isic_id, KnownFacts()) for lesion in lesions),
    )


def _answers(
    look: LesionLook, member: Member, lesions: Sequence[Lesion], kept: Path
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    path = kept / f"{_name(look, member, lesions)}.npz"
    if not path.is_file():
        rows = [
            member(look.crops(read_rgb(lesion.picture.path), [lesion.bbox], member.size))
            for lesion in tqdm(lesions, file=sys.stderr, mininterval=10)
        ]
        kept.mkdir(parents=True, exist_ok=True)
        logits, features = (np.concatenate(part) for part in zip(*rows, strict=True))
        np.savez(path, logits=logits, features=features)
    with np.load(path) as stored:
        return stored["logits"], stored["features"]


def _name(look: LesionLook, member: Member, lesions: Sequence[Lesion]) -> str:
    """A digest of all that the answers depend on, but the code."""
    parts = [member.digest, str((member.size, member.orientations, look.context))]
    parts += [f"{lesion.picture.path.name} {lesion.bbox}" for lesion in lesions]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def tones(lesions: Sequence[Lesion]) -> tuple[str, ...]:
    """The bin of the skin's tone outside each lesion's reference mask."""
    return tuple(_tone(lesion) for lesion in tqdm(lesions, file=sys.stderr, mininterval=10))


def _tone(lesion: Lesion) -> str:
    mask = cv2.imread(str(lesion.picture.mask_path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise FileNotFoundError(str(lesion.picture.mask_path))
    return skin_tone(read_rgb(lesion.picture.path), mask > 0).name


def facts_of(data_root: Path) -> dict[str, KnownFacts]:
    """Age, sex and site by ISIC name: of index.csv, else of HAM10000's own table beside it."""
    tables = [
        path for path in (data_root / "index.csv", data_root / "ham10000_metadata.csv") if path.is_file()
    ]
    found: dict[str, KnownFacts] = {}
    for path in tables:
        with path.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                facts = _facts(row)
                if facts != KnownFacts():
                    found[row.get("isic_id") or row.get("image_id") or ""] = facts
    return found


def _facts(row: Mapping[str, str]) -> KnownFacts:
    cells = {name: "" if (value or "").lower() in UNKNOWN else value for name, value in row.items()}
    site = next((cells[column] for column in SITE_COLUMNS if cells.get(column)), "")
    age = cells.get("age", "")
    return KnownFacts(float(age) if age else None, cells.get("sex", "").lower(), site.lower())
