"""A small drawn collection with a table of its own, as a site would bring it."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

from cds_bundles.data_prepare import prepare

SKIN = (150, 175, 215)
COLOURS = {"nv": (40, 60, 110), "mel": (30, 25, 40), "bcc": (120, 110, 200)}
"""BGR of the lesions of each class."""
SIDE = 96


def draw(folder: Path, lesions: int = 30, pictures_of_each: int = 2) -> Path:
    """Writes pictures, masks and pictures.csv into `folder`; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "pictures.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "dx", "lesion_id", "patient_id", "mask_path"])
        for lesion in range(lesions):
            dx = tuple(COLOURS)[lesion % len(COLOURS)]
            for view in range(pictures_of_each):
                name = f"{lesion:03d}_{view}"
                _draw_one(folder / f"{name}.png", folder / f"{name}_outline.png", dx, (lesion, view))
                row = [f"{name}.png", dx, f"L{lesion}", f"P{lesion // 2}", f"{name}_outline.png"]
                table.writerow(row)
    return folder


def index_of(folder: Path, **how: int) -> Path:
    """The index of a collection drawn in `folder`, made as `cds-plugin data prepare` makes it."""
    index = folder / "own.csv"
    prepare([draw(folder / "site", **how)], index)
    return index


def _draw_one(picture: Path, outline: Path, dx: str, seed: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    clouds = cv2.resize(rng.normal(0, 18, (9, 9, 3)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    canvas = np.clip(np.array(SKIN) + clouds, 0, 255).astype(np.uint8)
    centre = tuple(int(each) for each in rng.integers(36, 60, 2))
    axes = tuple(int(each) for each in rng.integers(12, 26, 2))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.ellipse(mask, centre, axes, float(rng.integers(180)), 0, 360, 255, -1)
    canvas[mask > 0] = np.clip(np.array(COLOURS[dx]) + rng.normal(0, 8, (int((mask > 0).sum()), 3)), 0, 255)
    cv2.imwrite(str(picture), canvas)
    cv2.imwrite(str(outline), mask)
