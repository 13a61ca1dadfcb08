"""Lesions to learn from: each picture with the box around its mask, its class and how often it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cds_bundles.classes import CLASSES
from cds_bundles.index import HAM10000, TASK1, Picture, read_index, split
from cds_bundles.lesion_crops import Box, Rgb, mask_box


@dataclass(frozen=True, slots=True)
class Lesion:
    """A picture with the tight box around its lesion and its column in CLASSES."""

    picture: Picture
    bbox: Box
    label: int


class UnreadablePicture(ValueError):
    """A picture or mask that the index names can't be read."""


def read_rgb(path: Path) -> Rgb:
    """The picture at `path` as (H, W, 3) uint8 sRGB."""
    rgb = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if rgb is None:
        raise UnreadablePicture(f"{path} can't be read as a picture")
    return rgb.astype(np.uint8, copy=False)


def labelled_lesions(pictures: Sequence[Picture]) -> tuple[Lesion, ...]:
    """Those of `pictures` with one of the seven diagnoses and a mask that is not empty."""
    chosen = (p for p in pictures if p.dx in CLASSES and p.mask_path is not None)
    return tuple(lesion for picture in chosen if (lesion := _lesion(picture)) is not None)


def _lesion(picture: Picture) -> Lesion | None:
    mask = cv2.imread(str(picture.mask_path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise UnreadablePicture(f"{picture.mask_path} can't be read as a mask")
    box = mask_box(mask > 0)
    return Lesion(picture, box, CLASSES.index(picture.dx)) if box else None


def training_and_held_out(data_root: Path) -> tuple[tuple[Lesion, ...], tuple[Lesion, ...]]:
    """Training lesions of HAM10000 and Task 1, and the held-out ones of HAM10000's fold 0."""
    pictures = [p for p in read_index(data_root / "index.csv") if p.source in (HAM10000, TASK1)]
    training, held_out = split(pictures)
    return labelled_lesions(training), labelled_lesions([p for p in held_out if p.source == HAM10000])


def draw_probabilities(lesions: Sequence[Lesion], power: float, task1_weight: float) -> NDArray[np.float64]:
    """How often each lesion is drawn: its class's count to the minus `power`, Task 1 times `task1_weight`."""
    labels = np.array([lesion.label for lesion in lesions])
    counts = np.maximum(np.bincount(labels, minlength=len(CLASSES)), 1)
    weights = counts[labels].astype(np.float64) ** -power
    weights[[lesion.picture.source == TASK1 for lesion in lesions]] *= task1_weight
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
