"""One small picture through everything: what is loaded on first use is loaded before the first real one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from cds_plugin.decoder import Decoder
from cds_plugin.dicomize import Dicomizer
from cds_plugin.errors import Refused
from cds_plugin.photograph import Photograph
from cds_plugin.study import BoundingBox, Quality, Rgb, Verdict
from cds_worker.classification import classify
from cds_worker.pipeline import Pipeline
from cds_worker.quality import assess
from cds_worker.segmentation import FoundLesion, find_lesions
from cds_worker.stage import DeviceFailed, stage

SIDE_PX = 64
SKIN = (200, 160, 140)
LESION = (90, 60, 50)
FIRST_REVISION = 1


def warm(pipeline: Pipeline, decoder: Decoder) -> None:
    """Decode, analyse and make results of a drawn square; nothing of it is kept.

    Raises a CdsError where that fails.
    """
    with stage({}, "warming"), TemporaryDirectory() as name:
        picture = Path(name, "square.png")
        Image.fromarray(_square()).save(picture)
        photograph = decoder.decode(Dicomizer(Path(name), decoder).add(picture), SIDE_PX * SIDE_PX)
        _every_stage(pipeline, photograph)


def check_device(pipeline: Pipeline, decoder: Decoder) -> None:
    """Raise DeviceFailed where the drawn square fails too: then no picture is at fault.

    Raises Unavailable where it could not be tried.
    """
    try:
        warm(pipeline, decoder)
    except Refused as failure:
        raise DeviceFailed(failure) from failure


def _every_stage(pipeline: Pipeline, photograph: Photograph) -> None:
    """Run each stage whatever the one before it says of a square."""
    assess(pipeline.quality_gate, photograph.rgb)
    find_lesions(pipeline.segmenter, photograph.rgb)
    whole = FoundLesion(BoundingBox(0, 0, SIDE_PX, SIDE_PX), np.ones((SIDE_PX, SIDE_PX), np.bool_), 1.0)
    lesions, _ = classify(pipeline.classifier, photograph.rgb, [whole], photograph.clinical)
    analysis = replace(
        pipeline.analyse(photograph), quality=Quality(Verdict.DIAGNOSTIC, (), None), lesions=lesions
    )
    pipeline.results(photograph.header, photograph.rgb, analysis, FIRST_REVISION)


def _square() -> Rgb:
    rgb = np.full((SIDE_PX, SIDE_PX, 3), SKIN, dtype=np.uint8)
    rgb[SIDE_PX // 4 : -SIDE_PX // 4, SIDE_PX // 4 : -SIDE_PX // 4] = LESION
    return rgb
