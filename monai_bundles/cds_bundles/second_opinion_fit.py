"""Fits the segmenter's second opinion to what the trained network finds, on the training side alone."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from tqdm import tqdm

from .index import HELD_OUT_FOLD
from .metric_overlap import iou
from .resize import resize_rgb
from .scene_artefacts import Mask, Random, Rgb
from .scenes import (
    CROWDED,
    USUAL,
    Scene,
    bounding_box,
    cover_with_skin,
    drawn_skin,
    through_dermatoscope,
)
from .segmentation import Detection, in_frame
from .segmenter_data import (
    DRAWS,
    FRAMES,
    Sources,
    blotched,
    composed_scene,
    drawn_scene,
    empty_scene,
    real_frame,
    to_tensor,
)
from .segmenter_network import LesionMaskRCNN, build_segmenter, pixels_last
from .segmenter_sources import split_sources
from .weights import load_half, save_half, weights_metadata

LARGER_LOOK = 1.155
"""Sides of the predictor's second frame, in sides of its first."""
STRIP_PIXELS = 56
"""Narrower skin beside a lesion is not used."""
GAP_PIXELS = 14
"""Between a lesion and the skin beside it."""
SMALL_SHARE, CERTAIN = 0.05, 0.8
"""A small, certain find on what should be skin is as often as not a naevus that nobody outlined: left out."""


@dataclass(slots=True)
class SecondOpinionFit:
    """`run()` looks at scenes, fits, and writes the second opinion into `weights`."""

    data_root: str
    weights: str
    scenes: int = 2750
    penalty: float = 33.0
    seed: int = 1
    threads: int = 1
    fold: int = HELD_OUT_FOLD
    """The one that is held out."""
    budget_minutes: float = 0.0
    """No further scene is looked at after these; 0 for no limit."""

    def run(self) -> dict[str, int]:
        """How many finds were lesions and how many skin; printed, too. Without both nothing is fitted."""
        torch.set_num_threads(self.threads)
        cv2.setNumThreads(1)
        network = build_segmenter()
        load_half(Path(self.weights), network)
        network.second_opinion.reset_parameters()
        pixels_last(network)
        source, _ = split_sources(Path(self.data_root), self.fold)
        seen = list(self._finds(network, source))
        lesion = torch.tensor([label for _, label in seen], dtype=torch.bool)
        told = {"scenes": self.scenes, "lesions": int(lesion.sum()), "skin": int((~lesion).sum())}
        if lesion.any() and not lesion.all():
            weight, bias = fitted(torch.stack([row for row, _ in seen]), lesion, self.penalty)
            network.second_opinion.load_state_dict({"weight": weight, "bias": bias})
        facts = {f"second_opinion_{name}": str(value) for name, value in told.items()}
        header = weights_metadata(Path(self.weights)) | facts | {"second_opinion_seed": str(self.seed)}
        save_half(Path(self.weights), network.state_dict(), header)
        print(json.dumps(told))
        return told

    def _finds(self, network: LesionMaskRCNN, source: Sources) -> Iterator[tuple[Tensor, bool]]:
        began = time.monotonic()
        for number in tqdm(range(self.scenes), file=sys.stderr, mininterval=10):
            if self.budget_minutes and time.monotonic() - began > 60 * self.budget_minutes:
                return
            rng = np.random.default_rng((self.seed, number))
            height, width = FRAMES[int(rng.integers(len(FRAMES)))]
            if rng.random() < 0.4:
                height, width = round(height * LARGER_LOOK), round(width * LARGER_LOOK)
            yield from labelled(network, a_scene(rng, source, height, width))


def fitted(rows: Tensor, lesion: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weight (1, D) and bias (1,) of a logistic regression of `lesion` (N,) bool on `rows` (N, D).

    `penalty` weighs the squared weights of the standardised columns against the sum of the losses.
    """
    scale = StandardScaler().fit(rows.double().numpy())
    found = LogisticRegression(C=1 / penalty, tol=1e-6, max_iter=2000)
    found.fit(scale.transform(rows.double().numpy()), lesion.numpy())
    weight = found.coef_ / scale.scale_
    bias = found.intercept_ - weight @ scale.mean_
    return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()


@torch.inference_mode()
def labelled(network: LesionMaskRCNN, scene: Scene) -> Iterator[tuple[Tensor, bool]]:
    """The evidence (columns,) of finds in `scene`, and whether they are lesions.

    Only finds that overlap an outlined lesion well, and finds where there is none at all, say
    something: parts of a lesion are neither lesion nor skin.
    """
    found = network.find(to_tensor(scene.rgb))
    height, width = scene.rgb.shape[:2]
    for box, soft, score, row in zip(
        *(found[name] for name in ("boxes", "masks", "scores")), found.get("evidence", ()), strict=True
    ):
        mask = in_frame(Detection(box.numpy(), soft[0].numpy(), float(score)), height, width)
        if scene.masks:
            if max(iou(mask, lesion) for lesion in scene.masks) > 0.5:
                yield row.clone(), True
        elif not (mask.mean() < SMALL_SHARE and float(score) > CERTAIN):
            yield row.clone(), False


def a_scene(rng: Random, source: Sources, height: int, width: int) -> Scene:
    """Real frames 36 %, composed 14 %, drawn 3 %, skin beside lesions 39 %, the training's empty ones 8 %."""
    kind = rng.random()
    if kind < 0.36:
        return real_frame(rng, source, height, width)
    if kind < 0.50:
        return composed_scene(rng, source, height, width, CROWDED if rng.random() < 0.5 else USUAL)
    if kind < 0.53:
        return drawn_scene(rng, height, width)
    if kind < 0.92:
        return skin_scene(rng, source, height, width)
    return empty_scene(rng, source, height, width)


def skin_scene(rng: Random, source: Sources, height: int, width: int) -> Scene:
    """Skin without a lesion, however uneven: a background picture or what lies beside a lesion."""
    skin = any_skin(rng, source)
    if skin is None:
        rgb = drawn_skin(rng, height, width)
    elif rng.random() < 0.5:
        rgb = a_window(rng, skin, height, width)
    else:
        rgb = cover_with_skin(rng, skin, height, width)
    rgb = blotched(rng, rgb) if rng.random() < 0.15 else rgb
    return through_dermatoscope(rng, Scene(rgb, ()), strength=float(rng.choice([0.0, 0.35, 1.0])))


def any_skin(rng: Random, source: Sources) -> Rgb | None:
    """A background picture, or the largest strip beside a lesion; None where there is no such thing."""
    if source.skin and rng.random() < 0.35:
        return source.files.rgb(source.skin[int(rng.integers(len(source.skin)))])
    for _ in range(DRAWS):
        strip = beside(*source.files.lesion(source.lesion(rng)))
        if min(strip.shape[:2]) >= STRIP_PIXELS:
            return strip
    return None


def beside(rgb: Rgb, mask: Mask) -> Rgb:
    """The largest strip of `rgb` beside the lesion; may be empty."""
    x0, y0, x1, y1 = bounding_box(mask)
    gap = GAP_PIXELS
    strips = (rgb[: max(0, y0 - gap)], rgb[y1 + gap :], rgb[:, : max(0, x0 - gap)], rgb[:, x1 + gap :])
    return max(strips, key=lambda strip: (min(strip.shape[:2]), strip.size))


def a_window(rng: Random, skin: Rgb, height: int, width: int) -> Rgb:
    """As large a part of `skin` as has the frame's aspect ratio, (height, width, 3)."""
    rows, columns = skin.shape[:2]
    side_x = min(columns, int(rows * width / height))
    side_y = min(rows, max(1, int(side_x * height / width)))
    x0, y0 = int(rng.integers(columns - side_x + 1)), int(rng.integers(rows - side_y + 1))
    return resize_rgb(np.ascontiguousarray(skin[y0 : y0 + side_y, x0 : x0 + side_x]), width, height)
