"""Where in its crop the classifier sees a diagnosis: class activation maps (Zhou et al., CVPR 2016)."""

from __future__ import annotations

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
    """Maps for one network; the layers it listens to are those of `lesion_network`."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval()
        self.maps = CAM(network, target_layers=FEATURES, fc_layers=CLASSIFIER, postprocessing=_as_it_is)

    @torch.no_grad()
    def __call__(self, crop: Rgb, column: int) -> Heat:
        """Evidence (S, S) float32, 0..1, for the class in `column` over `crop` (S, S, 3) uint8 sRGB.

        What speaks against the class is 0; all of it is 0 where nothing speaks for it.
        """
        evidence = self.maps(to_network_input(crop[None]), class_idx=[column])[0, 0].numpy()
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
    network: nn.Module, crop: Rgb, heat: Heat, column: int, steps: int = 16
) -> tuple[float, float]:
    """Areas under the two curves of Petsiuk et al., BMVC 2018: (deletion, insertion), 0..1 each.

    Pixels are blurred away (or brought back) in the order of `heat`, and the probability of `column` is
    followed. A map that points at what matters has a low first and a high second area.
    """
    blurred = cv2.GaussianBlur(crop, (0, 0), crop.shape[0] / 12)
    order = np.argsort(-heat.ravel(), kind="stable")
    frames = [crop, blurred]
    for step in range(1, steps):
        part = np.zeros(order.size, np.bool_)
        part[order[: round(order.size * step / steps)]] = True
        hot = part.reshape(heat.shape)[..., None]
        frames += [np.where(hot, blurred, crop), np.where(hot, crop, blurred)]
    with torch.no_grad():
        rows = torch.softmax(network(to_network_input(np.stack(frames))), dim=1)[:, column].numpy()
    deletion = np.concatenate([rows[:1], rows[2::2], rows[1:2]])
    insertion = np.concatenate([rows[1:2], rows[3::2], rows[:1]])
    return float(np.trapezoid(deletion) / steps), float(np.trapezoid(insertion) / steps)
