"""What a header must say before its pixels are worth decoding: pure, and every refusal has its own code."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from cds_plugin.elements import element_value
from cds_plugin.errors import Refused

MINIMUM_SIDE = 32
"""Pixels of the short side: below this no structure of a lesion is left to judge."""
MAX_FRAMES = 64
"""Frames of one object: each is analysed for itself, and they are analysed in one go."""

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
JPEG_DCT = (JPEGBaseline8Bit, JPEGExtended12Bit)
JPEG_PREDICTIVE = (JPEGLossless, JPEGLosslessSV1)
JPEG_LS = (JPEGLSLossless, JPEGLSNearLossless)
JPEG_WAVELET = (JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
DECODABLE = (*NATIVE, RLELossless, *JPEG_DCT, *JPEG_PREDICTIVE, *JPEG_LS, *JPEG_WAVELET)
"""Every transfer syntax whose pixels can be decoded."""

COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
PALETTE = "PALETTE COLOR"
GREYS = ("MONOCHROME1", "MONOCHROME2")
IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def check_decodable(header: Dataset, max_pixels: int) -> None:
    """Raise Refused unless the header promises 8-bit colour frames, all together of an acceptable size.

    Codes: missing_uid, invalid_uid, not_an_image, too_many_frames, no_pixels, too_many_pixels, too_small,
    unsupported_transfer_syntax, not_colour, not_8_bit, unsupported_colour.
    """
    _check_identifiers(header)
    rows, columns = frame_size(header)
    check_size(rows, columns, max_pixels)
    _check_frames(header, rows * columns, max_pixels)
    _check_transfer_syntax(header)
    _check_colour(header)
    _check_bits(header)


def frame_size(header: Dataset) -> tuple[int, int]:
    """Return (rows, columns); raises Refused `not_an_image` where the header has none."""
    rows, columns = element_value(header, "Rows"), element_value(header, "Columns")
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise Refused("not_an_image", "The object holds no image.", "Send photographs only.")
    return rows, columns


def check_size(rows: int, columns: int, max_pixels: int) -> None:
    """Raise Refused where a picture is empty, too large or too small to be looked at."""
    if rows <= 0 or columns <= 0:
        raise Refused("no_pixels", "The image has no pixels.", "Correct the sending system.")
    if rows * columns > max_pixels:
        raise Refused(
            "too_many_pixels",
            f"The image has {columns} x {rows} pixels; the limit is {max_pixels}.",
            "Send a smaller picture, or raise worker.max_pixels.",
        )
    if min(rows, columns) < MINIMUM_SIDE:
        raise Refused(
            "too_small",
            f"The image has {columns} x {rows} pixels; each side needs {MINIMUM_SIDE}.",
            "Send the photograph itself, no thumbnail.",
        )


def _check_identifiers(header: Dataset) -> None:
    for keyword in IDENTIFIERS:
        value = element_value(header, keyword)
        if not value:
            raise Refused("missing_uid", f"{keyword} is missing.", "Correct the sending system.")
        if not isinstance(value, UID) or not value.is_valid:
            raise Refused("invalid_uid", f"{keyword} is no valid UID.", "Correct the sending system.")


def _check_frames(header: Dataset, pixels: int, max_pixels: int) -> None:
    frames = element_value(header, "NumberOfFrames") or 1
    if not isinstance(frames, int) or not 1 <= frames <= MAX_FRAMES:
        raise Refused(
            "too_many_frames",
            f"The object has {frames} frames; 1 to {MAX_FRAMES} are analysed.",
            "Send the frames in several objects.",
        )
    if frames * pixels > max_pixels:
        raise Refused(
            "too_many_pixels",
            f"The {frames} frames have {frames * pixels} pixels; the limit is {max_pixels}.",
            "Send the frames in several objects, or raise worker.max_pixels.",
        )


def transfer_syntax_of(header: Dataset) -> UID:
    """Return the transfer syntax of the file meta, or the native one that a file without it is written in."""
    named = header.file_meta.get("TransferSyntaxUID") if hasattr(header, "file_meta") else None
    if named is not None:
        return UID(named)
    implicit, _ = header.original_encoding
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian


def _check_transfer_syntax(header: Dataset) -> None:
    syntax = transfer_syntax_of(header)
    if syntax not in DECODABLE:
        raise Refused(
            "unsupported_transfer_syntax",
            "The pixels are compressed in an unknown way.",
            "Send JPEG or uncompressed.",
        )


def _check_colour(header: Dataset) -> None:
    interpretation, samples = (
        element_value(header, "PhotometricInterpretation"),
        element_value(header, "SamplesPerPixel"),
    )
    if interpretation in GREYS:
        raise Refused("not_colour", "The image is greyscale.", "Send colour photographs.")
    if interpretation == PALETTE and samples == 1:
        return
    if interpretation not in COLOURS or samples != 3:
        raise Refused(
            "unsupported_colour", "The colour model is none of a photograph's.", "Send RGB or YBR_FULL_422."
        )


def _check_bits(header: Dataset) -> None:
    allocated, stored = element_value(header, "BitsAllocated"), element_value(header, "BitsStored")
    if allocated != 8 or stored != 8 or (element_value(header, "PixelRepresentation") or 0) != 0:
        raise Refused(
            "not_8_bit", "The image has other than 8 unsigned bits per sample.", "Send 8 bits per sample."
        )
