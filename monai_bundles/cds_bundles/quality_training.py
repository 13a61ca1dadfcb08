"""Training of the quality gate's autoencoder on good dermoscopy of training lesions, lightly varied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cds_bundles.autoencoder import SHORT_SIDE, as_tensor
from cds_bundles.index import (
    HELD_OUT_FOLD,
    Picture,
    index_file,
    read_index,
    split_index,
    validation_part,
)
from cds_bundles.picture_files import PictureFiles, decoded
from cds_bundles.training_loop import Plan, TrainingLoop, negative_loss

VALIDATION_BATCHES = 8
KERNELS = (cv2.INTER_AREA, cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
"""Shrinking kernels met in training; area averaging, the one in use, twice."""

SMALLEST_CROP = 0.6
"""Side of the smallest crop, as a share of the picture's shorter side."""

JPEG_QUALITY = (50, 100)
"""Range of the quality at which half of the pictures are compressed once more."""


@dataclass(frozen=True, slots=True)
class GoodBatches:
    """Makes the batch of any step: (N, 3, S, S) float32 in [0, 1], the same for the same seed and step."""

    pictures: tuple[Picture, ...]
    files: PictureFiles
    batch: int
    seed: int

    def __call__(self, step: int, _done: float = 0.0) -> torch.Tensor:
        """Varied squares of SHORT_SIDE pixels."""
        random = np.random.default_rng((self.seed, step))
        places = random.integers(len(self.pictures), size=self.batch)
        drawn = [self.files.rgb(self.pictures[place].path) for place in places]
        return torch.stack([as_tensor(vary(rgb, random)) for rgb in drawn])


class AutoencoderTask:
    """The autoencoder as a task of the training loop."""

    def __init__(
        self,
        network: nn.Module,
        training: GoodBatches,
        validation: GoodBatches,
        facts: Mapping[str, str],
    ) -> None:
        self.network = network
        self._training, self._validation, self._facts = training, validation, dict(facts)

    def optimizer(self, rate: float) -> torch.optim.Optimizer:
        """Adam over everything."""
        return torch.optim.Adam(self.network.parameters(), lr=rate)

    def batch_maker(self) -> GoodBatches:
        """Pictures of the training side."""
        return self._training

    def train_mode(self, network: nn.Module) -> None:
        """Nothing is frozen."""
        network.train()

    def losses(self, network: nn.Module, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mean squared error of the reconstruction."""
        return {"squared_error": nn.functional.mse_loss(network(batch).float(), batch)}

    def score(self, network: nn.Module, done: float) -> float:
        """Mean PSNR in dB of batches of the validation part, always the same ones."""
        error = -negative_loss(self, network, self._validation, VALIDATION_BATCHES)
        return -10 * math.log10(max(error, 1e-12))

    def facts(self) -> dict[str, str]:
        """What the run is set up from."""
        return self._facts


class AutoencoderTraining:
    """One resumable run; `run()` trains as planned and exports the averaged weights."""

    def __init__(
        self,
        data_root: str,
        run_directory: str,
        weights: str,
        network: nn.Module,
        plan: Plan,
        fold: int = HELD_OUT_FOLD,
        batch: int = 32,
        validation_share: float = 0.05,
        cache: str = "",
        cache_gigabytes: float = 6.0,
    ) -> None:
        """`data_root`: an index, or the folder of index.csv; `fold`: the one that is held out.

        `validation_share`: of the training pictures, looked at on the way and not trained on. `cache`: where
        decoded pictures are kept, by default in `run_directory`; 0 gigabytes keep none.
        """
        plan.check_validation(validation_share)
        data, directory = Path(data_root), Path(run_directory)
        training, looked_at = validation_part(split_index(data, fold)[0], validation_share, plan.seed)
        if not training:
            raise NothingToReconstruct(f"{data}: no dermoscopy of a lesion in folds other than {fold}")
        every = read_index(index_file(data))
        files = decoded(every, Path(cache) if cache else directory / "decoded", cache_gigabytes)
        facts = {"bundle": "dermoscopy_quality_gate", "held_out_fold": str(fold)}
        facts |= {"trained_on": f"{len(training)} pictures"}
        learned, seen = (GoodBatches(part, files, batch, plan.seed) for part in (training, looked_at))
        task = AutoencoderTask(network, learned, seen, facts)
        self.weights = Path(weights)
        self.loop = TrainingLoop(task, plan, directory, "autoencoder-")

    def run(self) -> dict[str, str]:
        """Trains from the last checkpoint, or from the start, to the end; then exports."""
        return self.loop.run(self.weights)


class NothingToReconstruct(ValueError):
    """The index leaves no dermoscopy on the training side."""


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
