"""What the quality gate's autoencoder is trained on: good dermoscopy of training lesions, lightly varied."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from cds_bundles.autoencoder import SHORT_SIDE, as_tensor
from cds_bundles.index import HAM10000, TASK1, Picture, from_source, read_index, split

KERNELS = (cv2.INTER_AREA, cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
"""Shrinking kernels met in training; area averaging, the one in use, twice."""

SMALLEST_CROP = 0.6
"""Side of the smallest crop, as a share of the picture's shorter side."""

JPEG_QUALITY = (50, 100)
"""Range of the quality at which half of the pictures are compressed once more."""


def training_pictures(data_root: str | Path) -> tuple[Picture, ...]:
    """Dermoscopy with a lesion, without the held-out lesions; `data_root` holds index.csv."""
    pictures = read_index(Path(data_root) / "index.csv")
    return split(from_source(pictures, HAM10000) + from_source(pictures, TASK1))[0]


class GoodPictures(Dataset[dict[str, torch.Tensor]]):
    """Square pictures of `SHORT_SIDE` pixels, float32 (3, H, W) in [0, 1]; input and target are the same."""

    def __init__(self, data_root: str, seed: int) -> None:
        self._files = tuple(np.fromfile(p.path, np.uint8) for p in training_pictures(data_root))
        self._random = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rgb = cv2.imdecode(self._files[index], cv2.IMREAD_COLOR_RGB)
        assert rgb is not None
        image = as_tensor(vary(rgb.astype(np.uint8, copy=False), self._random))
        return {"image": image, "label": image}


def vary(rgb: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """A crop of `rgb` (H, W, 3) turned, brightened, resized and compressed by chance; (128, 128, 3) uint8."""
    crop = _crop(rgb, random)
    size = (SHORT_SIDE, SHORT_SIDE)
    small = cv2.resize(crop, size, interpolation=int(random.choice(KERNELS))).astype(np.uint8, copy=False)
    turned = np.rot90(small[:, :: int(random.choice((-1, 1)))], int(random.integers(4)))
    gains = random.uniform(0.75, 1.1) * random.uniform(0.95, 1.05, 3)
    lit = np.clip(turned * gains, 0, 255).astype(np.uint8)
    return _compress(lit, random) if random.random() < 0.5 else lit


def _crop(rgb: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    rows, columns = rgb.shape[:2]
    side = max(1, round(min(rows, columns) * random.uniform(SMALLEST_CROP, 1.0)))
    top, left = int(random.integers(rows - side + 1)), int(random.integers(columns - side + 1))
    return rgb[top : top + side, left : left + side]


def _compress(rgb: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    quality = int(random.integers(*JPEG_QUALITY))
    _, stream = cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(stream, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded.astype(np.uint8, copy=False)


def latest_checkpoint(directory: str | Path) -> str | None:
    """The checkpoint of the most passes in `directory`, or None where training starts afresh."""
    paths = Path(directory).glob("checkpoint_epoch=*.pt")
    found = {int(re.findall(r"\d+", path.stem)[-1]): str(path) for path in paths}
    return found[max(found)] if found else None
