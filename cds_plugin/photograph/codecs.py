"""One pinned decoder per transfer syntax; see docs/decisions/decoders.md. Runs in the child only."""

from __future__ import annotations

import io

import jpeg_ls
import numpy as np
from openjpeg.utils import decode, get_parameters
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import RLELossless

from cds_plugin.errors import Refused
from cds_plugin.photograph.checks import (
    JPEG_DCT,
    JPEG_LS,
    JPEG_PREDICTIVE,
    JPEG_WAVELET,
    NATIVE,
    PALETTE,
    frame_size,
    transfer_syntax_of,
)
from cds_plugin.photograph.codestream import (
    END,
    Frame,
    damaged,
    is_whole_between_scans,
    read_frame,
    stating_colour,
    wavelet_transforms_colour,
)
from cds_plugin.photograph.colour import Samples, palette_to_rgb, to_srgb, ybr_full_to_rgb
from cds_plugin.photograph.facts import ColourSource
from cds_plugin.study import Rgb

YBR = ("YBR_FULL", "YBR_FULL_422")
WAVELET_FACTS = ("rows", "columns", "samples_per_pixel", "precision")


def decode_dataset(dataset: Dataset, frame: int = 1) -> tuple[Rgb, ColourSource]:
    """Return sRGB uint8 (rows, columns, 3) of one frame, 1 and up, of a whole data set.

    `check_decodable` must have passed it; all but the frame is dropped from it.
    """
    if not dataset.get("PixelData"):
        raise Refused("no_pixel_data", "The image has no pixel data.", "Send the object with its pixels.")
    syntax = transfer_syntax_of(dataset)
    _keep_only(dataset, syntax, frame)
    profile = dataset.get("ICCProfile")
    if syntax in JPEG_DCT:
        rgb, embedded = _decode_dct(_encoded(dataset), dataset)
        return to_srgb(rgb, profile or embedded)
    if syntax in JPEG_WAVELET:
        return to_srgb(_decode_wavelet(_encoded(dataset), dataset), profile)
    return to_srgb(_to_rgb(_decode_samples(dataset, syntax), dataset), profile)


def _keep_only(dataset: Dataset, syntax: str, frame: int) -> None:
    """Make an object of several frames one of a single frame."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames == 1:
        return
    data = dataset.PixelData
    if syntax in NATIVE:
        size = _native_frame_bytes(dataset, frames)
        dataset.PixelData = data[(frame - 1) * size : frame * size]
    else:
        offsets = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
        extended = offsets if all(offsets) else None
        encoded = get_frame(data, frame - 1, number_of_frames=frames, extended_offsets=extended)
        dataset.PixelData = encapsulate([encoded], has_bot=False)
    dataset.NumberOfFrames = 1
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        dataset.pop(keyword, None)


def _native_frame_bytes(dataset: Dataset, frames: int) -> int:
    """Return the bytes of one of several frames, whose chroma may be subsampled (PS3.3 C.7.6.3.1.2)."""
    rows, columns = frame_size(dataset)
    whole = rows * columns * int(dataset.SamplesPerPixel)
    subsampled = (
        dataset.PhotometricInterpretation == "YBR_FULL_422" and len(dataset.PixelData) < whole * frames
    )
    size = whole // 3 * 2 if subsampled else whole
    if size * frames > len(dataset.PixelData):
        raise damaged()
    return size


def _decode_samples(dataset: Dataset, syntax: str) -> Samples:
    """Return uint8 (rows, columns) or (rows, columns, 3) as stored."""
    if syntax in NATIVE:
        return _decode_native(dataset, syntax)
    if syntax == RLELossless:
        return _through_pydicom(dataset, syntax, plugin="pydicom")
    if syntax in JPEG_PREDICTIVE:
        _check_predictive(_encoded(dataset), dataset)
        return _through_pydicom(dataset, syntax, plugin="gdcm")
    assert syntax in JPEG_LS
    return _decode_ls(_encoded(dataset), dataset)


def _to_rgb(samples: Samples, dataset: Dataset) -> Rgb:
    interpretation = dataset.PhotometricInterpretation
    if interpretation == PALETTE:
        return palette_to_rgb(samples, dataset)
    return ybr_full_to_rgb(samples) if interpretation in YBR else samples


def _through_pydicom(dataset: Dataset, syntax: str, plugin: str) -> Samples:
    pixels, _ = get_decoder(syntax).as_array(dataset, index=0, raw=True, decoding_plugin=plugin)
    return pixels


def _decode_native(dataset: Dataset, syntax: str) -> Samples:
    rows, columns = frame_size(dataset)
    samples = rows * columns * dataset.SamplesPerPixel
    if dataset.PhotometricInterpretation == "YBR_FULL_422" and len(dataset.PixelData) >= samples:
        dataset.PhotometricInterpretation = "YBR_FULL"  # not subsampled, whatever it says
    return _through_pydicom(dataset, syntax, plugin="")


def _decode_dct(data: bytes, dataset: Dataset) -> tuple[Rgb, bytes | None]:
    """Return RGB and the stream's own profile; what it says of its colours outweighs the header."""
    frame = read_frame(data)
    _check_frame(frame, dataset)
    if not frame.names_its_colour and dataset.PhotometricInterpretation == "RGB":
        data = stating_colour(data, rgb=True)
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        if picture.mode != "RGB" or picture.size != (frame.columns, frame.rows):
            raise damaged()
        return np.asarray(picture), picture.info.get("icc_profile")


def _decode_ls(data: bytes, dataset: Dataset) -> Samples:
    _check_frame(read_frame(data), dataset)
    buffer, info = jpeg_ls.decode_pixel_data(
        data + END
    )  # CharLS spends seconds where a scan ends with the data
    rows, columns = frame_size(dataset)
    samples = np.frombuffer(buffer, dtype=np.uint8)
    if dataset.SamplesPerPixel == 1:
        return samples.reshape(rows, columns)
    by_plane = info["interleave_mode"] == 0
    return (
        np.moveaxis(samples.reshape(3, rows, columns), 0, -1)
        if by_plane
        else samples.reshape(rows, columns, 3)
    )


def _decode_wavelet(data: bytes, dataset: Dataset) -> Rgb:
    facts = get_parameters(data)
    rows, columns, samples, bits = (int(facts[key]) for key in WAVELET_FACTS)
    _check_stream((rows, columns, samples, bits), dataset)
    if facts["is_signed"]:
        raise damaged()
    pixels = decode(data)
    return pixels if wavelet_transforms_colour(data) else _to_rgb(pixels, dataset)


def _check_predictive(data: bytes, dataset: Dataset) -> None:
    """Refuse also what GDCM aborts over, or reads on for ever."""
    frame = read_frame(data)
    _check_frame(frame, dataset)
    if frame.adobe_transform not in (None, 0, 1) or not is_whole_between_scans(data):
        raise damaged()


def _check_frame(frame: Frame, dataset: Dataset) -> None:
    _check_stream((frame.rows, frame.columns, len(frame.component_ids), frame.precision), dataset)


def _check_stream(claimed: tuple[int, int, int, int], dataset: Dataset) -> None:
    """Raise Refused where the stream's (rows, columns, samples, bits) are not the header's."""
    promised = (*frame_size(dataset), dataset.SamplesPerPixel, dataset.BitsStored)
    if claimed != promised:
        raise Refused(
            "stream_differs_from_header",
            f"The pixel stream claims (rows, columns, samples, bits) {claimed}, the header {promised}.",
            "Correct the sending system.",
        )


def _encoded(dataset: Dataset) -> bytes:
    """Return the one encoded frame, its fragments joined (PS3.5 A.4)."""
    return get_frame(dataset.PixelData, 0, number_of_frames=1)
