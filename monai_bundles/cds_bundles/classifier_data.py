"""Lesions to learn from: each picture with the box around its mask, its class and how often it is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cds_bundles.classes import CLASSES
from cds_bundles.index import Picture, reported, split_index
from cds_bundles.lesion_crops import Box, mask_box
from cds_bundles.picture_files import PictureFiles, read_mask
from cds_bundles.picture_files import read_rgb as read_rgb


@dataclass(frozen=True, slots=True)
class Lesion:
    """A picture with the tight box around its lesion and its column in CLASSES."""

    picture: Picture
    bbox: Box
    label: int


def labelled_lesions(
    pictures: Sequence[Picture],
    files: PictureFiles | None = None,
    boxes: Mapping[Path, Box | None] | None = None,
) -> tuple[Lesion, ...]:
    """Those of `pictures` with one of the seven diagnoses and a mask that is not empty, or else a box.

    Boxes are in the pixels of what `files` gives; by default of the pictures themselves. `boxes`: by path,
    for pictures without a mask.
    """
    known = [p for p in pictures if p.dx in CLASSES]
    found = ((p, _box(p, files, boxes or {})) for p in known)
    return tuple(Lesion(picture, box, CLASSES.index(picture.dx)) for picture, box in found if box)


def _box(picture: Picture, files: PictureFiles | None, boxes: Mapping[Path, Box | None]) -> Box | None:
    if picture.mask_path is None:
        return boxes.get(picture.path)
    return mask_box(files.mask(picture) if files else read_mask(picture.mask_path))


def training_and_held_out(data_root: Path, fold: int = 0) -> tuple[tuple[Lesion, ...], tuple[Lesion, ...]]:
    """Lesions to train on, and those of the held-out `fold`.

    Dermoscopy with one of the seven diagnoses counts. Pictures whose fold the index does not give are held
    out as well where a digest deals them there, but no figure rests on them.
    """
    training, held_out = split_index(data_root, fold)
    return labelled_lesions(training), labelled_lesions(reported(held_out))


def class_counts(lesions: Sequence[Lesion]) -> NDArray[np.intp]:
    """(7,): pictures of each class."""
    return np.bincount([lesion.label for lesion in lesions], minlength=len(CLASSES))


def draw_probabilities(
    lesions: Sequence[Lesion], power: float, source_weights: Mapping[str, float]
) -> NDArray[np.float64]:
    """How often each lesion is drawn: its class's count to the minus `power`, times its source's weight."""
    counts = np.maximum(class_counts(lesions), 1).astype(np.float64)
    weights = counts[[lesion.label for lesion in lesions]] ** -power
    weights *= [source_weights.get(lesion.picture.source, 1.0) for lesion in lesions]
    return np.asarray(weights / weights.sum())


def every_class(lesions: Sequence[Lesion], per_class: int, seed: int) -> tuple[Lesion, ...]:
    """Up to `per_class` lesions of each class, the same ones for the same seed."""
    order = np.random.default_rng(seed).permutation(len(lesions))
    taken: dict[int, list[Lesion]] = {column: [] for column in range(len(CLASSES))}
    for place in order:
        row = taken[lesions[place].label]
        if len(row) < per_class:
            row.append(lesions[place])
    return tuple(lesion for row in taken.values() for lesion in row)
