"""Stored samples become sRGB: YCbCr, palettes and ICC profiles (PS3.3 C.7.6.3.1.2, C.7.9, C.11.15)."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from cds_plugin.photograph.facts import ColourSource
from cds_plugin.study import Rgb

Samples = NDArray[np.uint8]
SRGB_NAMES = ("srgb",)
"""What the description of a profile begins with when it is sRGB itself; converting would only round."""


def ybr_full_to_rgb(samples: Samples) -> Rgb:
    """Return RGB of full-range ITU-R BT.601 YCbCr (rows, columns, 3), rounded as JPEG decoders do."""
    return np.asarray(Image.fromarray(samples, mode="YCbCr").convert("RGB"))


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
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _is_srgb(source):
            return rgb, ColourSource.ICC_PROFILE
        picture = Image.fromarray(rgb)
        ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), inPlace=True)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return rgb, ColourSource.UNREADABLE_PROFILE
    return np.asarray(picture), ColourSource.ICC_PROFILE


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    return ImageCms.getProfileDescription(profile).strip().lower().startswith(SRGB_NAMES)
