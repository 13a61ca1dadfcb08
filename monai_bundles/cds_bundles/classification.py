"""The product's lesion classifier: a frame and its lesions' boxes in, seven probabilities a lesion out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cds_bundles.classes import CLASSES
from cds_bundles.classifier_network import to_network_input
from cds_bundles.lesion_crops import Box, Rgb, cut_square, square_around
from cds_bundles.weights import load_half

BATCH = 8
"""Crops per forward pass: bounds memory when a frame holds many lesions."""


class LesionClassifier:
    """Classifies lesions of HAM10000's seven diagnoses. For research use, not for diagnosis."""

    def __init__(
        self,
        network: nn.Module,
        weights: str,
        size: int = 224,
        context: float = 1.5,
        turns: bool = True,
        device: str = "cpu",
        logit_offsets: Sequence[float] = (0.0,) * len(CLASSES),
    ) -> None:
        """`size`: side of a crop in pixels; `context`: its side over the box's longer side; `turns`: average
        four orientations; `logit_offsets`: added to the logits in the order of CLASSES.
        """
        self.network = load_half(Path(weights), network).to(device)
        self.network.to(memory_format=torch.channels_last)
        self.size, self.context, self.turns = size, context, turns
        self.offsets = torch.tensor(tuple(logit_offsets), dtype=torch.float32, device=device)

    def __call__(self, rgb: Rgb, bboxes: Sequence[Box]) -> NDArray[np.float32]:
        """Probabilities (N, 7) float32 in the order of CLASSES, each row summing to 1.

        `rgb` (H, W, 3) uint8 sRGB; `bboxes` (x0, y0, x1, y1) in its pixels, x1 and y1 exclusive.
        """
        rows = [self._rows(rgb, bboxes[first : first + BATCH]) for first in range(0, len(bboxes), BATCH)]
        return np.concatenate(rows) if rows else np.zeros((0, len(CLASSES)), np.float32)

    def _rows(self, rgb: Rgb, bboxes: Sequence[Box]) -> NDArray[np.float32]:
        height, width = rgb.shape[:2]
        squares = [square_around(bbox, width, height, self.context) for bbox in bboxes]
        crops = np.stack([cut_square(rgb, square, self.size) for square in squares])
        return class_probabilities(self.network, crops, self.turns, self.offsets)


@torch.inference_mode()
def class_probabilities(
    network: nn.Module,
    crops: NDArray[np.uint8],
    turns: bool,
    offsets: torch.Tensor | None = None,
) -> NDArray[np.float32]:
    """Softmax rows (N, 7) float32 of `crops` (N, S, S, 3) uint8 sRGB; with `turns`, of four views' mean.

    `offsets` (7) are added to the logits, on the network's device.
    """
    device = next(network.parameters()).device
    batch = to_network_input(crops).to(device)
    mirrored = batch.flip(3)
    views = (batch, mirrored, batch.rot90(1, (2, 3)), mirrored.rot90(1, (2, 3))) if turns else (batch,)
    logits = torch.stack([network(view) for view in views]).mean(dim=0)
    probabilities = torch.softmax(logits if offsets is None else logits + offsets, dim=1)
    return np.asarray(probabilities.cpu().numpy(), np.float32)
