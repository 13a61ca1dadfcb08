"""How unlike everything learned from is a lesion? Distance of its features from those of training lesions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Floats = NDArray[np.float32]

DIRECTIONS = 96
"""Principal directions of the training features that a familiar lesion may vary in."""
CURVE = 201
"""Points at which the distances of held-out lesions are kept, for a distance to be read as a share."""


@dataclass(frozen=True, slots=True, eq=False)
class Familiarity:
    """Training features summed up: mean (D,), orthonormal directions (K, D), spread along them (K,)."""

    mean: Floats
    directions: Floats
    spread: Floats
    rest: float
    """Root mean square length of what the directions leave over."""
    curve: Floats
    """Distances of held-out lesions at equal steps of their share, ascending."""

    @classmethod
    def of(cls, features: Floats, held_out: Floats, directions: int = DIRECTIONS) -> Familiarity:
        """From the features (N, D) of training lesions, and (M, D) of lesions that were held out."""
        mean = features.mean(axis=0)
        centred = features - mean
        _, singular, basis = np.linalg.svd(centred, full_matrices=False)
        count = min(directions, len(singular))
        spread = singular[:count] / np.sqrt(max(1, len(features) - 1)) + 1e-6
        left = centred - (centred @ basis[:count].T) @ basis[:count]
        rest = float(np.sqrt(np.mean(np.square(left).sum(axis=1)))) + 1e-6
        bare = cls(mean, basis[:count], spread, rest, np.zeros(CURVE, np.float32))
        curve = np.quantile(bare.distance(held_out), np.linspace(0, 1, CURVE))
        return cls(mean, basis[:count], spread, rest, curve.astype(np.float32))

    def distance(self, features: Floats) -> Floats:
        """(N,): mean squared deviation along the directions and beyond them, in units of the training's."""
        centred = features - self.mean
        along = centred @ self.directions.T
        left = np.square(centred).sum(axis=1) - np.square(along).sum(axis=1)
        inside = np.square(along / self.spread).mean(axis=1)
        return np.asarray(inside + left.clip(0) / self.rest**2, np.float32)

    def ood_scores(self, features: Floats) -> Floats:
        """(N,) in 0..1: the share of held-out lesions that were less strange than this one."""
        return np.asarray(
            np.interp(self.distance(features), self.curve, np.linspace(0, 1, len(self.curve))), np.float32
        )

    def appearances(self, features: Floats) -> Floats:
        """(N, K), rows of length one: how each lesion deviates from the mean, every direction counting alike.

        The cosine of two rows says how alike two lesions look; pictures of one lesion have a high one.
        """
        along = ((features - self.mean) @ self.directions.T) / self.spread
        lengths = np.linalg.norm(along, axis=1, keepdims=True)
        return np.asarray(along / np.maximum(lengths, 1e-6), np.float32)

    def save(self, path: Path) -> None:
        """Writes half-precision safetensors."""
        tensors = {
            "mean": self.mean.astype(np.float16),
            "directions": self.directions.astype(np.float16),
            "spread": self.spread.astype(np.float32),
            "rest": np.array([self.rest], np.float32),
            "curve": self.curve.astype(np.float32),
        }
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)
        path.chmod(0o644)

    @classmethod
    def load(cls, path: Path) -> Familiarity:
        """What `save` wrote, in single precision."""
        parts = {name: value.astype(np.float32) for name, value in load_file(path).items()}
        return cls(
            parts["mean"], parts["directions"], parts["spread"], float(parts["rest"][0]), parts["curve"]
        )
