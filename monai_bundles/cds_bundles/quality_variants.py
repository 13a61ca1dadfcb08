"""Good pictures that must stay good: other sizes, more compression, darker skin."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from cds_bundles.scene_artefacts import Random, through_camera
from cds_bundles.scene_drawing import FITZPATRICK_TONES, draw_lesion, draw_skin, outline

Rgb = NDArray[np.uint8]

MELANIN = tuple(
    float(np.log(fairest / darkest))
    for fairest, darkest in zip(FITZPATRICK_TONES[0], FITZPATRICK_TONES[-1], strict=True)
)
"""Optical density of (R, G, B) that leads from skin type I to VI."""
MELANIN_OF_TYPE_5 = 0.65
MELANIN_OF_TYPE_6 = 0.95
"""Share of MELANIN that makes fair skin as dark as these types typically are."""
ADAPTED = 1.25
"""A camera's answer to darker skin: that many times the values."""


def on_darker_skin(rgb: Rgb, amount: float, adapted: float = ADAPTED) -> Rgb:
    """`rgb` (H, W, 3) with `amount` times MELANIN everywhere; the lesion gets darker too."""
    passed = adapted * np.exp(-amount * np.array(MELANIN))
    return np.asarray(np.clip(rgb * passed + 0.5, 0, 255), np.uint8)


def with_short_side(rgb: Rgb, pixels: int) -> Rgb:
    """`rgb` resized as photo software does: area averaging to shrink, cubic to enlarge."""
    scale = pixels / min(rgb.shape[:2])
    kernel = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    size = tuple(round(side * scale) for side in rgb.shape[1::-1])
    return np.asarray(cv2.resize(rgb, size, interpolation=kernel), np.uint8)


def recompressed(rgb: Rgb, quality: int) -> Rgb:
    """`rgb` after JPEG of `quality`, 1 to 100."""
    _, stream = cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(stream, cv2.IMREAD_COLOR), np.uint8)


VARIANTS: Mapping[str, Callable[[Rgb], Rgb]] = {
    "short_side_224": lambda rgb: with_short_side(rgb, 224),
    "short_side_600": lambda rgb: with_short_side(rgb, 600),
    "short_side_3000": lambda rgb: with_short_side(rgb, 3000),
    "jpeg_quality_95": lambda rgb: recompressed(rgb, 95),
    "jpeg_quality_75": lambda rgb: recompressed(rgb, 75),
    "jpeg_quality_50": lambda rgb: recompressed(rgb, 50),
    "jpeg_quality_30": lambda rgb: recompressed(rgb, 30),
    "recoloured_to_type_5": lambda rgb: on_darker_skin(rgb, MELANIN_OF_TYPE_5),
    "recoloured_to_type_6": lambda rgb: on_darker_skin(rgb, MELANIN_OF_TYPE_6),
}


def drawn_on(random: Random, skin_type: int, height: int, width: int) -> Rgb:
    """A drawn lesion on drawn skin of Fitzpatrick's `skin_type`, 1 to 6, through a camera."""
    skin = draw_skin(random, height, width, skin_type)
    diameter = float(random.uniform(0.35, 0.65)) * height
    mask = outline(random, height, width, (width / 2, height / 2), diameter)
    return through_camera(random, draw_lesion(random, skin, mask))
