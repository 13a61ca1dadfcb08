"""Where in its crop the classifier sees a diagnosis: class activation maps (Zhou et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from monai.visualize.class_activation_maps import CAM
from numpy.typing import NDArray
from torch import nn

from cds_bundles.classifier_network import to_network_input

FEATURES = "bn2"
"""The last layer that still knows places; its mean over them is what the classifier layer sees."""
CLASSIFIER = "classifier"

Heat = NDArray[np.float32]
Rgb = NDArray[np.uint8]


class ActivationMaps:
    """Maps for one or more networks; the layers it listens to are those of `lesion_network`."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self.networks = tuple(network.eval() for network in networks)
        self.maps = [
            CAM(network, target_layers=FEATURES, fc_layers=CLASSIFIER, postprocessing=_as_it_is)
            for network in self.networks
        ]

    @torch.no_grad()
    def __call__(self, crops: Sequence[Rgb], column: int, size: int) -> Heat:
        """Evidence (size, size) float32, 0..1, for the class in `column`, averaged over the networks.

        `crops`: for each network the same square at its own size, (S, S, 3) uint8 sRGB. What speaks against
        the class is 0; all of it is 0 where nothing speaks for it.
        """
        rows = []
        for network, maps, crop in zip(self.networks, self.maps, crops, strict=True):
            batch = to_network_input(crop[None]).to(next(network.parameters()).device)
            own = maps(batch, class_idx=[column])[0, 0].cpu().numpy()
            rows.append(cv2.resize(own, (size, size), interpolation=cv2.INTER_LINEAR))
        evidence = np.mean(rows, axis=0)
        heat = np.clip(evidence - _neutral(evidence), 0, None)
        return np.asarray(heat / heat.max() if heat.max() > 0 else heat, np.float32)


def _as_it_is(maps: torch.Tensor) -> torch.Tensor:
    return maps


def _neutral(evidence: NDArray[np.floating]) -> float:
    """The map's median: a class's evidence counts from where most of the crop stands."""
    return float(np.median(evidence))


def energy_inside(heat: Heat, mask: NDArray[np.bool_]) -> float:
    """Share of the map's sum that lies on the lesion, 0..1; 0 for an empty map."""
    total = float(heat.sum())
    return float(heat[mask].sum()) / total if total > 0 else 0.0


def deletion_and_insertion(
    probabilities: Callable[[Rgb], NDArray[np.floating]],
    crop: Rgb,
    heat: Heat,
    column: int,
    steps: int = 16,
) -> tuple[float, float]:
    """Areas under the two curves of Petsiuk et al., BMVC 2018: (deletion, insertion), 0..1 each.

    Pixels are blurred away (or brought back) in the order of `heat`, and the probability of `column` is
    followed. A map that points at what matters has a low first and a high second area. `probabilities`: rows
    (N, C) of crops (N, S, S, 3).
    """
    blurred = cv2.GaussianBlur(crop, (0, 0), crop.shape[0] / 12)
    order = np.argsort(-heat.ravel(), kind="stable")
    frames = [crop, blurred]
    for step in range(1, steps):
        part = np.zeros(order.size, np.bool_)
        part[order[: round(order.size * step / steps)]] = True
        hot = part.reshape(heat.shape)[..., None]
        frames += [np.where(hot, blurred, crop), np.where(hot, crop, blurred)]
    rows = probabilities(np.stack(frames))[:, column]
    deletion = np.concatenate([rows[:1], rows[2::2], rows[1:2]])
    insertion = np.concatenate([rows[1:2], rows[3::2], rows[:1]])
    return float(np.trapezoid(deletion) / steps), float(np.trapezoid(insertion) / steps)
