"""The product's lesion classifier: a frame and its lesions' boxes in, an opinion on each lesion out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cds_bundles.calibration import prediction_sets
from cds_bundles.classes import CLASSES
from cds_bundles.classifier_network import pooled_features, to_network_input
from cds_bundles.explanation import ActivationMaps
from cds_bundles.familiarity import Familiarity
from cds_bundles.lesion_crops import Box, Rgb, cut_square, square_around
from cds_bundles.trust import Trust
from cds_bundles.weights import load_half

Floats = NDArray[np.float32]

BATCH = 8
"""Crops per forward pass: bounds memory when a frame holds many lesions."""


@dataclass(frozen=True, slots=True)
class LesionOpinion:
    """What the classifier says of one lesion. For research use, not for diagnosis."""

    probabilities: tuple[float, ...]
    """In the order of CLASSES; calibrated on held-out lesions; they sum to 1."""
    prediction_set: tuple[str, ...]
    """The diagnoses that can't be left out without missing the true one more often than promised."""
    ood_score: float
    """0 to 1: the share of held-out lesions that were less unlike the training lesions than this one."""


class LesionLook:
    """Cuts lesions out of a frame and runs the network over them, in the same way in training and in use."""

    def __init__(
        self,
        network: nn.Module,
        weights: str,
        size: int = 224,
        context: float = 1.5,
        turns: bool = True,
        device: str = "cpu",
    ) -> None:
        """`size`: side of a crop in pixels; `context`: its side over the box's longer side.

        `turns`: average four orientations.
        """
        self.network = load_half(Path(weights), network).to(device)
        self.network.to(memory_format=torch.channels_last)
        self.size, self.context, self.turns = size, context, turns

    def __call__(self, rgb: Rgb, bboxes: Sequence[Box]) -> tuple[Floats, Floats]:
        """Logits (N, 7) and features (N, 1280), float32, of the lesions in `bboxes`; not calibrated."""
        crops = self.crops(rgb, bboxes)
        return logits_and_features(self.network, crops, self.turns)

    def crops(self, rgb: Rgb, bboxes: Sequence[Box]) -> Rgb:
        """(N, size, size, 3) uint8: the squares of `rgb` that the network sees."""
        height, width = rgb.shape[:2]
        squares = [square_around(bbox, width, height, self.context) for bbox in bboxes]
        return np.stack([cut_square(rgb, square, self.size) for square in squares])


class LesionClassifier:
    """Classifies lesions of HAM10000's seven diagnoses. For research use, not for diagnosis."""

    def __init__(self, look: LesionLook, trust: str, familiarity: str) -> None:
        """`trust` and `familiarity`: the files that calibration made for `look`."""
        self.look = look
        self.maps = ActivationMaps(look.network)
        self.trust = Trust.load(Path(trust))
        self.familiarity = Familiarity.load(Path(familiarity))

    def __call__(self, rgb: Rgb, bboxes: Sequence[Box]) -> tuple[LesionOpinion, ...]:
        """An opinion on each lesion.

        `rgb` (H, W, 3) uint8 sRGB; `bboxes` (x0, y0, x1, y1) in its pixels, x1 and y1 exclusive.
        """
        batches = (bboxes[first : first + BATCH] for first in range(0, len(bboxes), BATCH))
        return tuple(opinion for batch in batches for opinion in self._opinions(rgb, batch))

    def activation_map(self, rgb: Rgb, bbox: Box, name: str) -> tuple[Rgb, Floats]:
        """The crop (S, S, 3) that was looked at, and the evidence in it for class `name`, (S, S) in 0..1."""
        crop = self.look.crops(rgb, [bbox])[0]
        return crop, self.maps(crop, CLASSES.index(name))

    @property
    def operating_points(self) -> dict[float, float]:
        """For each sensitivity on offer the malignancy from which on a lesion is flagged."""
        return {wanted: point.threshold for wanted, point in self.trust.operating_points.items()}

    def _opinions(self, rgb: Rgb, bboxes: Sequence[Box]) -> list[LesionOpinion]:
        logits, features = self.look(rgb, bboxes)
        probabilities = self.trust.scaling.probabilities(logits)
        members = prediction_sets(probabilities, self.trust.set_thresholds)
        strange = self.familiarity.ood_scores(features)
        return [
            LesionOpinion(
                tuple(row.tolist()),
                tuple(name for name, inside in zip(CLASSES, member, strict=True) if inside),
                float(unlike),
            )
            for row, member, unlike in zip(probabilities, members, strange, strict=True)
        ]


@torch.inference_mode()
def logits_and_features(network: nn.Module, crops: Rgb, turns: bool) -> tuple[Floats, Floats]:
    """(N, 7) logits and (N, D) pooled features of `crops` (N, S, S, 3) uint8 sRGB.

    With `turns`, each is the mean over four orientations.
    """
    device = next(network.parameters()).device
    batch = to_network_input(crops).to(device)
    mirrored = batch.flip(3)
    views = (batch, mirrored, batch.rot90(1, (2, 3)), mirrored.rot90(1, (2, 3))) if turns else (batch,)
    features = torch.stack([pooled_features(network, view) for view in views]).mean(dim=0)
    logits = network.get_submodule("classifier")(features)
    return logits.cpu().numpy(), features.cpu().numpy()
