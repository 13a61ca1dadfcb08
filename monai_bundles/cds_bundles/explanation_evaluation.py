"""Are activation maps more than decoration? Measured against the lesion, random maps and random weights."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from cds_bundles.calibration import VectorScaling
from cds_bundles.classes import CLASSES
from cds_bundles.classification import LesionLook
from cds_bundles.classifier_data import Lesion, every_class, read_rgb, training_and_held_out
from cds_bundles.explanation import ActivationMaps, Heat, Rgb, deletion_and_insertion, energy_inside
from cds_bundles.metric_resampling import estimates
from cds_bundles.metric_shares import mean

SEED = 11
SPLIT = "HAM10000 fold 0, grouped by lesion"


@dataclass(frozen=True, slots=True)
class _Case:
    """What was measured on one lesion."""

    energy: float
    area: float
    deletion: float
    insertion: float
    random_deletion: float
    random_insertion: float
    likeness_random_head: float
    likeness_random_network: float


@dataclass(slots=True)
class ExplanationEvaluation:
    """`run()` measures the maps of the likeliest class on held-out lesions and writes `report`."""

    data_root: str
    look: LesionLook
    report: str
    per_class: int = 20
    threads: int = 1

    def run(self) -> dict[str, Any]:
        """Energy inside the lesion, deletion and insertion, and likeness to maps of randomised networks."""
        torch.set_num_threads(self.threads)
        lesions = every_class(training_and_held_out(Path(self.data_root))[1], self.per_class, SEED)
        networks = [member.network for member in self.look.members]
        trained = ActivationMaps(networks)
        head = ActivationMaps([randomised(each, only="classifier") for each in networks])
        network = ActivationMaps([randomised(each) for each in networks])
        rng = np.random.default_rng(SEED)
        cases = [self._case(lesion, trained, head, network, rng) for lesion in tqdm(lesions, file=sys.stderr)]
        groups = [lesion.picture.lesion_id for lesion in lesions]
        figures: dict[str, Any] = {"split": SPLIT, "at_most_per_class": self.per_class}
        measures = {name: mean([getattr(case, name) for case in cases]) for name in _Case.__slots__}
        figures |= {name: each.as_json() for name, each in estimates(measures, groups, SPLIT).items()}
        Path(self.report).parent.mkdir(parents=True, exist_ok=True)
        Path(self.report).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(figures, indent=2))
        return figures

    def _case(
        self,
        lesion: Lesion,
        trained: ActivationMaps,
        head: ActivationMaps,
        network: ActivationMaps,
        rng: np.random.Generator,
    ) -> _Case:
        rgb = read_rgb(lesion.picture.path)
        crop, mask = self._crop_and_mask(rgb, lesion)
        crops = [self.look.crops(rgb, [lesion.bbox], member.size)[0] for member in self.look.members]
        column = int(self._probabilities(crop[None])[0].argmax())
        heat = trained(crops, column, self.look.size)
        chance = rng.random((8, 8)).astype(np.float32)
        noise = cv2.resize(chance, heat.shape[::-1], interpolation=cv2.INTER_CUBIC).astype(np.float32)
        return _Case(
            energy_inside(heat, mask),
            float(mask.mean()),
            *deletion_and_insertion(self._probabilities, crop, heat, column),
            *deletion_and_insertion(self._probabilities, crop, noise, column),
            likeness(heat, head(crops, column, self.look.size)),
            likeness(heat, network(crops, column, self.look.size)),
        )

    def _probabilities(self, crops: Rgb) -> NDArray[np.float64]:
        """(N, 7): the members' mean logits after the softmax, not calibrated, one orientation each."""
        plain = VectorScaling((1.0,) * len(CLASSES), (0.0,) * len(CLASSES))
        return plain.probabilities(self.look.of_crops(crops).mean(axis=1))

    def _crop_and_mask(self, rgb: Rgb, lesion: Lesion) -> tuple[Rgb, NDArray[np.bool_]]:
        grey = cv2.imread(str(lesion.picture.mask_path), cv2.IMREAD_GRAYSCALE)
        if grey is None:
            raise FileNotFoundError(str(lesion.picture.mask_path))
        stacked = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
        crop = self.look.crops(rgb, [lesion.bbox])[0]
        return crop, self.look.crops(stacked, [lesion.bbox])[0][..., 0] > 127


def randomised(network: nn.Module, only: str = "") -> nn.Module:
    """A copy whose weights (those of layer `only`, or all) are shuffled: same values, nothing learned."""
    shuffled = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in shuffled.named_parameters():
            if name.startswith(only):
                order = torch.randperm(parameter.numel(), generator=generator)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return shuffled


def likeness(first: Heat, second: Heat) -> float:
    """Spearman's rank correlation of two maps, -1..1; 0 where one is flat."""
    ranks = [np.argsort(np.argsort(heat.ravel(), kind="stable"), kind="stable") for heat in (first, second)]
    if not first.any() or not second.any():
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
