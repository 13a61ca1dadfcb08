"""The product's lesion classifier: a frame and its lesions' boxes in, an opinion on each lesion out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cds_bundles.calibration import OperatingPoint, prediction_sets
from cds_bundles.classes import CLASSES
from cds_bundles.classifier_network import lesion_network, pooled_features, to_network_input
from cds_bundles.clinical_facts import Facts, informed, names_known
from cds_bundles.explanation import ActivationMaps
from cds_bundles.familiarity import Familiarity
from cds_bundles.lesion_crops import Box, Rgb, cut_square, square_around
from cds_bundles.resize import resize_rgb
from cds_bundles.trust import Trust
from cds_bundles.weights import load_half

Floats = NDArray[np.float32]

BATCH = 8
"""Crops per forward pass: bounds memory when a frame holds many lesions."""
ORIENTATIONS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class LesionOpinion:
    """What the classifier says of one lesion. For research use, not for diagnosis."""

    probabilities: tuple[float, ...]
    """In the order of CLASSES; calibrated on held-out lesions; they sum to 1."""
    prediction_set: tuple[str, ...]
    """The diagnoses that can't be left out without missing the true one more often than promised."""
    ood_score: float
    """0 to 1: the share of held-out lesions that were less unlike the training lesions than this one."""
    appearance: tuple[float, ...]
    """A vector of length one; the cosine with that of another picture says how alike two lesions look."""
    facts: tuple[str, ...] = ()
    """Which of "age", "sex" and "site" the probabilities rest on beside the picture."""


class Member:
    """One network of the classifier, and how it looks at a crop."""

    def __init__(self, architecture: str, weights: str, size: int, orientations: int = 4) -> None:
        """`size`: side of a crop in pixels; `orientations`: how many are averaged, of ORIENTATIONS."""
        if orientations not in ORIENTATIONS:
            raise ValueError(f"{orientations} orientations: choose one of {ORIENTATIONS}")
        self.network = load_half(Path(weights), lesion_network(architecture=architecture))
        self.network.to(memory_format=torch.channels_last)
        self.architecture, self.weights = architecture, Path(weights)
        self.size, self.orientations = size, orientations

    @property
    def digest(self) -> str:
        """SHA-256 of the weights file, hexadecimal."""
        with self.weights.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def __call__(self, crops: Rgb) -> tuple[Floats, Floats]:
        """Logits (N, 7) and features (N, D) of `crops` (N, size, size, 3) uint8 sRGB."""
        return logits_and_features(self.network, crops, self.orientations)


class LesionLook:
    """Cuts lesions out of a frame and runs the networks over them, in the same way in training and in use."""

    def __init__(self, members: Sequence[Member], context: float = 1.5, device: str = "") -> None:
        """`context`: a crop's side over the box's longer side; an empty `device`: where the members are."""
        for member in members if device else ():
            member.network.to(device)
        self.members, self.context = tuple(members), context

    def __call__(self, rgb: Rgb, bboxes: Sequence[Box]) -> tuple[Floats, Floats]:
        """Logits (N, M, 7) by member, not calibrated, and the first member's features (N, D)."""
        answers = [member(self.crops(rgb, bboxes, member.size)) for member in self.members]
        return np.stack([logits for logits, _ in answers], axis=1), answers[0][1]

    def crops(self, rgb: Rgb, bboxes: Sequence[Box], size: int = 0) -> Rgb:
        """(N, size, size, 3) uint8: the squares of `rgb` that a member sees; 0: at the largest one's size."""
        height, width = rgb.shape[:2]
        squares = [square_around(bbox, width, height, self.context) for bbox in bboxes]
        return np.stack([cut_square(rgb, square, size or self.size) for square in squares])

    @property
    def size(self) -> int:
        """Side, in pixels, of the largest crop that a member sees."""
        return max(member.size for member in self.members)

    def of_first(self) -> LesionLook:
        """The same look through the first member alone, whose features say what is familiar."""
        return LesionLook(self.members[:1], self.context)

    def of_crops(self, crops: Rgb) -> Floats:
        """Logits (N, M, 7) of `crops` (N, size, size, 3), one orientation each."""
        answers = []
        for member in self.members:
            fitted = np.stack([resize_rgb(crop, member.size, member.size) for crop in crops])
            answers.append(logits_and_features(member.network, fitted, 1)[0])
        return np.stack(answers, axis=1)


class LesionClassifier:
    """Classifies lesions of HAM10000's seven diagnoses. For research use, not for diagnosis."""

    def __init__(self, look: LesionLook, trust: str, familiarity: str) -> None:
        """`trust` and `familiarity`: the files that calibration made for `look`."""
        self.look = look
        self.maps = ActivationMaps([member.network for member in look.members])
        self.trust = Trust.load(Path(trust))
        self.familiarity = Familiarity.load(Path(familiarity))
        self.appearance_model = _joint_digest(look.members[0].digest, Path(familiarity))

    def __call__(self, rgb: Rgb, bboxes: Sequence[Box]) -> tuple[LesionOpinion, ...]:
        """An opinion on each lesion, from the picture alone.

        `rgb` (H, W, 3) uint8 sRGB; `bboxes` (x0, y0, x1, y1) in its pixels, x1 and y1 exclusive.
        """
        batches = (bboxes[first : first + BATCH] for first in range(0, len(bboxes), BATCH))
        return tuple(opinion for batch in batches for opinion in self._opinions(rgb, batch))

    def informed(self, opinions: Sequence[LesionOpinion], facts: Facts) -> tuple[LesionOpinion, ...]:
        """`opinions` from the picture alone, once age, sex and site are known too; any may be missing."""
        names = names_known(facts)
        if not names or not opinions:
            return tuple(opinions)
        evidence = self.trust.facts.evidence(facts)
        before = np.array([opinion.probabilities for opinion in opinions])
        rows = informed(before, evidence, self.trust.facts_weight)
        reading = self.trust.with_facts
        members = prediction_sets(rows, reading.set_thresholds)
        return tuple(
            replace(opinion, probabilities=tuple(row.tolist()), prediction_set=_names(member), facts=names)
            for opinion, row, member in zip(opinions, rows, members, strict=True)
        )

    def activation_map(self, rgb: Rgb, bbox: Box, name: str) -> tuple[Rgb, Floats]:
        """The crop (S, S, 3) that was looked at, and the evidence in it for class `name`, (S, S) in 0..1."""
        crops = [self.look.crops(rgb, [bbox], member.size)[0] for member in self.look.members]
        heat = self.maps(crops, CLASSES.index(name), self.look.size)
        return self.look.crops(rgb, [bbox])[0], heat

    @property
    def operating_points(self) -> dict[float, float]:
        """For each sensitivity on offer the malignancy from which on a lesion is flagged."""
        return _thresholds(self.trust.picture_alone.operating_points)

    @property
    def informed_operating_points(self) -> dict[float, float]:
        """The same for malignancies that `informed` gave."""
        return _thresholds(self.trust.with_facts.operating_points)

    def _opinions(self, rgb: Rgb, bboxes: Sequence[Box]) -> list[LesionOpinion]:
        logits, features = self.look(rgb, bboxes)
        rows = self.trust.probabilities(logits)
        members = prediction_sets(rows, self.trust.picture_alone.set_thresholds)
        strange = self.familiarity.ood_scores(features)
        looks = self.familiarity.appearances(features)
        return [
            LesionOpinion(tuple(row.tolist()), _names(member), float(unlike), tuple(look.tolist()))
            for row, member, unlike, look in zip(rows, members, strange, looks, strict=True)
        ]


def _names(member: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(name for name, inside in zip(CLASSES, member, strict=True) if inside)


def _joint_digest(network: str, familiarity: Path) -> str:
    """SHA-256, hexadecimal, over all that makes an appearance: only those of one model can be compared."""
    with familiarity.open("rb") as stream:
        space = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashlib.sha256(f"{network}  {space}".encode()).hexdigest()


def _thresholds(points: Mapping[float, OperatingPoint]) -> dict[float, float]:
    return {wanted: point.threshold for wanted, point in points.items()}


@torch.inference_mode()
def logits_and_features(network: nn.Module, crops: Rgb, orientations: int = 1) -> tuple[Floats, Floats]:
    """(N, 7) logits and (N, D) pooled features of `crops` (N, S, S, 3) uint8 sRGB, averaged over views.

    The views, of ORIENTATIONS, go through the network as one batch.
    """
    device = next(network.parameters()).device
    batch = to_network_input(crops).to(device)
    views = [side.rot90(quarter, (2, 3)) for quarter in range(4) for side in (batch, batch.flip(3))]
    joined = torch.cat(views[:orientations]).contiguous(memory_format=torch.channels_last)
    features = pooled_features(network, joined).view(orientations, len(crops), -1).mean(dim=0)
    logits = network.get_submodule("classifier")(features)
    return logits.cpu().numpy(), features.cpu().numpy()
