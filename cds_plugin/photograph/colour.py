"""Stored samples become sRGB: YCbCr, palettes and ICC profiles (PS3.3 C.7.6.3.1.2, C.7.9, C.11.15)."""

from __future__ import annotations

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from cds_plugin.photograph.facts import ColourSource
from cds_plugin.study import Rgb

Samples = NDArray[np.uint8]
PROBE_STEPS = 17
"""Levels per channel on which a profile is compared with sRGB."""
ROUNDING = 1


def ybr_full_to_rgb(samples: Samples) -> Rgb:
    """Return RGB of full-range BT.601 YCbCr (rows, columns, 3), rounded where Pillow would truncate."""
    return np.asarray(cv2.cvtColor(samples[..., [0, 2, 1]], cv2.COLOR_YCrCb2RGB), dtype=np.uint8)


def palette_to_rgb(indices: Samples, dataset: Dataset) -> Rgb:
    """Return RGB of palette indices (rows, columns); 16-bit tables are scaled to their upper byte."""
    coloured = apply_color_lut(indices, dataset)[..., :3]
    if coloured.dtype == np.uint8:
        return coloured
    holds_bytes = int(coloured.max(initial=0)) <= 255
    return (coloured if holds_bytes else coloured >> 8).astype(np.uint8)


def to_srgb(rgb: Rgb, profile: bytes | None) -> tuple[Rgb, ColourSource]:
    """Return `rgb` in sRGB by its ICC profile (perceptual intent), and where its colours come from."""
    if not profile:
        return rgb, ColourSource.ASSUMED_SRGB
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), "RGB", "RGB"
        )
        if _changes_nothing(transform):
            return rgb, ColourSource.ICC_PROFILE
        picture = Image.fromarray(rgb)
        ImageCms.applyTransform(picture, transform, inPlace=True)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return rgb, ColourSource.UNREADABLE_PROFILE
    return np.asarray(picture), ColourSource.ICC_PROFILE


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Return whether a transform only rounds: the profile is sRGB itself, whatever it is called."""
    steps = np.linspace(0, 255, PROBE_STEPS).round().astype(np.uint8)
    probe = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(PROBE_STEPS, -1, 3)
    seen = np.asarray(ImageCms.applyTransform(Image.fromarray(probe), transform))
    return int(np.abs(seen.astype(int) - probe).max()) <= ROUNDING
