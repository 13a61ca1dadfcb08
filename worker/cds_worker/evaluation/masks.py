"""True outlines as pictures: one lesion (a mask) or several (a label picture: 0 is skin)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cds_plugin.errors import Refused

LABELS = NDArray[np.integer]
_GREY_OR_NUMBERED = frozenset({"1", "L", "P", "I", "I;16"})


def read_labels(path: Path, height: int, width: int) -> LABELS:
    """Return the values (height, width) of the mask or label picture at `path`.

    Raises Refused where it can't be read or is not of the picture's size.
    """
    try:
        with Image.open(path) as picture:
            labels = np.asarray(picture if picture.mode in _GREY_OR_NUMBERED else picture.convert("L"))
    except (OSError, Image.DecompressionBombError) as error:
        raise Refused("bad_mask", f"{path} can't be read: {error}.", "Give a PNG mask.") from error
    if labels.shape != (height, width):
        raise Refused(
            "bad_mask",
            f"{path} is {labels.shape[1]}x{labels.shape[0]}, its picture {width}x{height}.",
            "Give a mask of the picture's size.",
        )
    return labels.astype(np.uint8) if labels.dtype == np.bool_ else labels
