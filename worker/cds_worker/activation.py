"""Where in a lesion its finding is seen, as a picture that a person can look at."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from cds_plugin.study import Analysis, Rgb
from cds_worker.classification import ClassificationPredictor

SCALE = 2
"""The crop that the network sees is small: it is shown twice as large."""
STRIP_PX = 22
NOTICE = "research use, not for diagnosis"


def activation_pictures(
    predictor: ClassificationPredictor, rgb: Rgb, analysis: Analysis
) -> Iterator[tuple[int, bytes]]:
    """Yield (lesion number, PNG) for each lesion: its crop, and beside it the evidence for its finding."""
    for lesion in analysis.lesions:
        box = (lesion.bbox.x0, lesion.bbox.y0, lesion.bbox.x1, lesion.bbox.y1)
        crop, heat = predictor.activation_map(rgb, box, lesion.finding.value)
        title = f"lesion {lesion.number}: evidence for {lesion.finding.value}; {NOTICE}"
        yield lesion.number, _png(_titled(np.hstack([crop, heated(crop, heat)]), title))


def heated(crop: Rgb, heat: NDArray[np.float32]) -> Rgb:
    """Return the crop (S, S, 3) in grey under the evidence (S, S) in 0-1, from dark violet to yellow."""
    grey = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.float32)
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    share = 0.7 * heat[..., None]
    return np.asarray(grey * (1 - share) + colours * share, np.uint8)


def _titled(picture: Rgb, title: str) -> Rgb:
    size = (picture.shape[1] * SCALE, picture.shape[0] * SCALE)
    large = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)
    framed = cv2.copyMakeBorder(large, STRIP_PX, 0, 0, 0, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    cv2.putText(
        framed, title, (6, STRIP_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA
    )
    return np.asarray(framed, np.uint8)


def _png(picture: Rgb) -> bytes:
    _, stream = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    return stream.tobytes()
