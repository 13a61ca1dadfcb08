"""JPEG and PNG files become upright 8-bit RGB, or are Refused. Runs in the child only."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from cds_plugin.errors import Refused
from cds_plugin.photograph.checks import check_size
from cds_plugin.photograph.codestream import SOF_BASELINE, read_frame, without_metadata
from cds_plugin.study import Rgb

FORMATS = ("JPEG", "PNG")
Image.MAX_IMAGE_PIXELS = None  # `check_size` says what is too large, for every kind of file alike
TURNED = range(2, 9)
"""EXIF orientations that are not upright; other values count as none."""
OPAQUE = 255


@dataclass(frozen=True, slots=True, eq=False)
class DecodedPicture:
    """Upright pixels (rows, columns, 3) and, where the file's own stream can be kept, that stream."""

    rgb: Rgb
    icc_profile: bytes | None
    lossy: bool
    jpeg: bytes | None
    jpeg_is_rgb: bool


def picture_size(data: bytes, max_pixels: int) -> tuple[int, int]:
    """Return (rows, columns) as the file claims them; raises Refused (`not_a_picture`, `animated`, sizes)."""
    with _opened(data) as picture:
        if picture.format == "PNG" and getattr(picture, "is_animated", False):
            raise Refused("animated", "The picture is animated.", "Give one still picture.")
        check_size(picture.height, picture.width, max_pixels)
        return picture.height, picture.width


def decode_picture(data: bytes) -> DecodedPicture:
    """Return the decoded file that `picture_size` has passed; may refuse (`not_colour`, `transparent`)."""
    with _opened(data) as picture:
        lossy = picture.format != "PNG"
        turned = picture.getexif().get(ExifTags.Base.Orientation) in TURNED
        profile = picture.info.get("icc_profile")
        rgb = np.asarray(_as_rgb(ImageOps.exif_transpose(picture) if turned else picture))
    jpeg, is_rgb = _kept_stream(data) if lossy and not turned else (None, False)
    return DecodedPicture(rgb, profile, lossy, jpeg, is_rgb)


def _opened(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise Refused(
            "not_a_picture", "The file is neither JPEG nor PNG.", "Give a JPEG or PNG picture."
        ) from error


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode in ("RGB", "RGBA", "P"):
        return _opaque(picture.convert("RGBA"))
    raise Refused(
        "not_colour", f"The picture is {picture.mode}, which has no faithful RGB.", "Give an RGB picture."
    )


def _opaque(picture: Image.Image) -> Image.Image:
    if picture.getchannel("A").getextrema() != (OPAQUE, OPAQUE):
        raise Refused(
            "transparent", "The picture is partly transparent.", "Give a picture without transparency."
        )
    return picture.convert("RGB")


def _kept_stream(data: bytes) -> tuple[bytes | None, bool]:
    """Return a baseline stream of three components without metadata, and whether its samples are RGB."""
    frame = read_frame(data)
    keeps = frame.marker == SOF_BASELINE and frame.precision == 8 and len(frame.component_ids) == 3
    return (without_metadata(data), frame.is_rgb) if keeps else (None, False)
