"""Where in a lesion its finding is seen, by the network that named it."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from cds_plugin.results.heatmap import MAX_MAPS, titled_pair
from cds_plugin.study import Analysis, HeatMap, Rgb
from cds_worker.classification import ClassificationPredictor


def heat_maps(predictor: ClassificationPredictor, rgb: Rgb, analysis: Analysis) -> Iterator[HeatMap]:
    """Yield the map of each lesion for its finding, of the first MAX_MAPS lesions at most."""
    for lesion in analysis.lesions[:MAX_MAPS]:
        box = (lesion.bbox.x0, lesion.bbox.y0, lesion.bbox.x1, lesion.bbox.y1)
        crop, evidence = predictor.activation_map(rgb, box, lesion.finding.value)
        yield HeatMap(lesion.number, lesion.finding, crop, evidence.astype(np.float32))


def png(heat_map: HeatMap) -> bytes:
    """Return one map beside its crop as a PNG file, its title and the research notice above."""
    _, stream = cv2.imencode(".png", np.ascontiguousarray(titled_pair(heat_map)[..., ::-1]))
    return stream.tobytes()
