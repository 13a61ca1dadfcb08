"""Every transfer syntax gives the pixels that went in: exactly, or as libjpeg reads lossy JPEG."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jpeg_ls
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from PIL import Image, ImageCms
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from cds_plugin.decoder import Decoder
from cds_plugin.photograph import ColourSource
from cds_plugin.photograph.codestream import stating_colour
from cds_plugin.study import Rgb

from .conftest import Write

MAX_PIXELS = 1_000_000
JPEG_TOLERANCE = 2
"""Levels by which two libjpeg builds may differ after chroma upsampling."""
Dcmtk = Callable[..., subprocess.CompletedProcess[str]]


def pixels(decoder: Decoder, path: Path) -> Rgb:
    """Return what the decoder makes of a file."""
    return decoder.decode(path, MAX_PIXELS).rgb


def jpeg(rgb: NDArray[Any], **options: Any) -> bytes:
    """Return a JPEG of Pillow's."""
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=92, **options)
    return stream.getvalue()


def ybr(rgb: Rgb) -> NDArray[np.uint8]:
    """Return full-range YCbCr (PS3.3 C.7.6.3.1.2)."""
    weights = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    return np.clip((rgb @ weights.T + [0, 128, 128]).round(), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
def test_uncompressed_and_rle_are_exact(
    decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write, syntax: pydicom.uid.UID
) -> None:
    if syntax == RLELossless:
        photograph.compress(RLELossless, picture, generate_instance_uid=False)
    np.testing.assert_array_equal(pixels(decoder, write(photograph, syntax)), picture)


def test_big_endian_is_exact(
    decoder: Decoder, picture: Rgb, photograph: Dataset, tmp_path: Path, dcmtk: Dcmtk, write: Write
) -> None:
    target = tmp_path / "big.dcm"
    assert dcmtk("dcmconv", "+tb", write(photograph), target).returncode == 0
    assert pydicom.dcmread(target).file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    np.testing.assert_array_equal(pixels(decoder, target), picture)


def test_colour_by_plane_is_exact(decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write) -> None:
    planes = np.moveaxis(picture, -1, 0).tobytes()
    path = write(photograph, PlanarConfiguration=1, PixelData=planes)
    np.testing.assert_array_equal(pixels(decoder, path), picture)


@pytest.mark.parametrize("use_mct", [True, False])
def test_jpeg_2000_is_exact(
    decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write, use_mct: bool
) -> None:
    frame = encode_array(picture, photometric_interpretation=1, use_mct=use_mct)
    path = write(
        photograph, JPEG2000Lossless, frame, PhotometricInterpretation="YBR_RCT" if use_mct else "RGB"
    )
    np.testing.assert_array_equal(pixels(decoder, path), picture)


def test_jpeg_2000_of_ycc_without_its_own_transform(
    decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write
) -> None:
    frame = encode_array(ybr(picture), photometric_interpretation=3, use_mct=False)
    path = write(photograph, JPEG2000Lossless, frame, PhotometricInterpretation="YBR_FULL")
    assert_close(pixels(decoder, path), picture, 2)


@pytest.mark.parametrize("interleave", [0, 1, 2])
def test_jpeg_ls_is_exact(
    decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write, interleave: int
) -> None:
    source = np.moveaxis(picture, -1, 0).copy() if interleave == 0 else picture
    frame = bytes(jpeg_ls.encode_array(source, interleave_mode=interleave))
    np.testing.assert_array_equal(pixels(decoder, write(photograph, JPEGLSLossless, frame)), picture)


def test_near_lossless_jpeg_ls_stays_within_its_error(
    decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write
) -> None:
    frame = bytes(jpeg_ls.encode_array(picture, lossy_error=2, interleave_mode=2))
    assert_close(pixels(decoder, write(photograph, JPEGLSNearLossless, frame)), picture, 2)


@pytest.mark.parametrize(("option", "syntax"), [("+e1", JPEGLosslessSV1), ("+el", JPEGLossless)])
def test_lossless_jpeg_is_exact(
    decoder: Decoder,
    picture: Rgb,
    photograph: Dataset,
    tmp_path: Path,
    dcmtk: Dcmtk,
    option: str,
    syntax: str,
    write: Write,
) -> None:
    target = tmp_path / "lossless.dcm"
    assert dcmtk("dcmcjpeg", option, write(photograph), target).returncode == 0
    assert pydicom.dcmread(target).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(pixels(decoder, target), picture)


@pytest.mark.parametrize("options", [("+eb",), ("+eb", "+s2"), ("+eb", "+cr"), ("+ee",)])
def test_lossy_jpeg_of_dcmtk_is_what_dcmtk_reads(
    decoder: Decoder,
    photograph: Dataset,
    tmp_path: Path,
    dcmtk: Dcmtk,
    options: tuple[str, ...],
    write: Write,
) -> None:
    packed, unpacked = tmp_path / "packed.dcm", tmp_path / "unpacked.dcm"
    assert dcmtk("dcmcjpeg", *options, "+q", "95", write(photograph), packed).returncode == 0
    assert dcmtk("dcmdjpeg", "+cn" if "+cr" in options else "+ca", packed, unpacked).returncode == 0
    theirs = pydicom.dcmread(unpacked)
    assert theirs.PhotometricInterpretation == "RGB"
    expected = np.frombuffer(theirs.PixelData, np.uint8)[: theirs.Rows * theirs.Columns * 3]
    ours = pixels(decoder, packed)
    difference = np.abs(ours.astype(int) - expected.reshape(ours.shape))
    assert difference.mean() < 1.0
    assert np.percentile(difference, 99) <= 10  # dcmtk repeats chroma samples, libjpeg-turbo smooths them


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_baseline_is_what_pillow_reads(
    decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write, subsampling: int
) -> None:
    frame = jpeg(picture, subsampling=subsampling)
    path = write(photograph, JPEGBaseline8Bit, frame, PhotometricInterpretation="YBR_FULL_422")
    assert_close(pixels(decoder, path), np.asarray(Image.open(io.BytesIO(frame))), JPEG_TOLERANCE)


def test_the_stream_outweighs_a_header_that_lies(
    decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write
) -> None:
    frame = jpeg(picture, subsampling=0)  # JFIF: YCbCr by definition
    path = write(photograph, JPEGBaseline8Bit, frame, PhotometricInterpretation="RGB")
    assert_close(pixels(decoder, path), picture, 12)


def test_rgb_within_jpeg_by_adobe_marker(
    decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write
) -> None:
    frame = jpeg(picture, subsampling=0, keep_rgb=True)
    path = write(photograph, JPEGBaseline8Bit, frame, PhotometricInterpretation="YBR_FULL_422")
    assert_close(pixels(decoder, path), picture, 12)


def test_a_stream_that_names_no_colours_is_read_as_the_header_says(
    decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write
) -> None:
    frame = without_segment(jpeg(picture, subsampling=0, keep_rgb=True), 0xEE)
    frame = frame.replace(b"\x03R\x11\x00G\x11\x00B\x11\x00", b"\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00")
    frame = frame.replace(b"\x03R\x00G\x00B\x00", b"\x03\x01\x00\x02\x00\x03\x00")
    path = write(photograph, JPEGBaseline8Bit, frame, PhotometricInterpretation="RGB")
    assert_close(pixels(decoder, path), picture, 12)


def without_segment(frame: bytes, marker: int) -> bytes:
    """Return a JPEG without its first segment of a kind."""
    start = frame.find(bytes((0xFF, marker)))
    if start < 0:
        return frame
    return frame[:start] + frame[start + 2 + int.from_bytes(frame[start + 2 : start + 4], "big") :]


def test_stating_colour_changes_the_reading() -> None:
    grey = np.full((40, 40, 3), 90, np.uint8)
    bare = without_segment(jpeg(grey, subsampling=0), 0xE0)
    read = [np.asarray(Image.open(io.BytesIO(stating_colour(bare, rgb=rgb)))) for rgb in (True, False)]
    np.testing.assert_array_equal(read[0][0, 0], [90, 128, 128])
    np.testing.assert_array_equal(read[1][0, 0], [90, 90, 90])


def test_uncompressed_ycc(decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write) -> None:
    raw = ybr(picture).tobytes()
    path = write(photograph, PhotometricInterpretation="YBR_FULL", PixelData=raw + b"\0" * (len(raw) % 2))
    assert_close(pixels(decoder, path), picture, 2)


def test_uncompressed_subsampled_ycc(
    decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write
) -> None:
    full = ybr(picture)
    packed = np.empty((*full.shape[:1], full.shape[1] // 2, 4), np.uint8)
    packed[..., 0], packed[..., 1] = full[:, ::2, 0], full[:, 1::2, 0]
    packed[..., 2:] = full[:, ::2, 1:]
    path = write(photograph, PhotometricInterpretation="YBR_FULL_422", PixelData=packed.tobytes())
    repeated = full.copy()
    repeated[:, 1::2, 1:] = full[:, ::2, 1:]
    assert_close(pixels(decoder, path), np.asarray(Image.fromarray(repeated, "YCbCr").convert("RGB")), 2)


@pytest.mark.parametrize("bits", [8, 16])
def test_palette_colour(decoder: Decoder, photograph: Dataset, write: Write, bits: int) -> None:
    indices = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64).astype(np.uint8)
    table = np.stack([np.arange(256), 255 - np.arange(256), np.full(256, 70)], axis=1)
    scaled = (table if bits == 8 else table * 257).astype(f"<u{bits // 8}")
    for index, colour in enumerate(("Red", "Green", "Blue")):
        setattr(photograph, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, bits])
        setattr(photograph, f"{colour}PaletteColorLookupTableData", scaled[:, index].tobytes())
    del photograph.PlanarConfiguration
    path = write(
        photograph,
        Rows=64,
        Columns=64,
        SamplesPerPixel=1,
        PhotometricInterpretation="PALETTE COLOR",
        PixelData=indices.tobytes(),
    )
    np.testing.assert_array_equal(pixels(decoder, path), table[indices])


def test_icc_profile_is_applied(decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write) -> None:
    swapped = red_and_green_swapped()
    path = write(photograph, ICCProfile=swapped)
    found = decoder.decode(path, MAX_PIXELS)
    assert found.colour is ColourSource.ICC_PROFILE
    expected = ImageCms.profileToProfile(
        Image.fromarray(picture),
        ImageCms.ImageCmsProfile(io.BytesIO(swapped)),
        ImageCms.createProfile("sRGB"),
    )
    assert_close(found.rgb, np.asarray(expected), 1)
    assert np.abs(found.rgb.astype(int) - picture).mean() > 20
    assert_close(found.rgb, picture[..., [1, 0, 2]], 3)


def red_and_green_swapped() -> bytes:
    """Return sRGB's profile with the tags of its red and green primaries exchanged."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")


def test_srgb_profile_changes_nothing(
    decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = decoder.decode(write(photograph, ICCProfile=profile + b"\0" * (len(profile) % 2)), MAX_PIXELS)
    assert found.colour is ColourSource.ICC_PROFILE
    np.testing.assert_array_equal(found.rgb, picture)


def test_a_broken_profile_is_told(decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write) -> None:
    found = decoder.decode(write(photograph, ICCProfile=b"no profile at all!"), MAX_PIXELS)
    assert found.colour is ColourSource.UNREADABLE_PROFILE
    np.testing.assert_array_equal(found.rgb, picture)


BARS = {
    5: (255, 0, 0),
    25: (0, 255, 0),
    45: (0, 0, 255),
    55: (128, 128, 255),
    65: (0, 0, 0),
    85: (192, 192, 192),
}
"""Row -> sRGB of the colour bars that pydicom's sample files all show."""


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_dcmtk_+eb+cr.dcm",
        "SC_rgb_dcmtk_+eb+cy+n1.dcm",
        "SC_rgb_dcmtk_+eb+cy+n2.dcm",
        "SC_rgb_dcmtk_+eb+cy+np.dcm",
        "SC_rgb_dcmtk_+eb+cy+s2.dcm",
        "SC_rgb_dcmtk_+eb+cy+s4.dcm",
        "SC_rgb_gdcm_KY.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "SC_rgb_jpeg_lossy_gdcm.dcm",
        "SC_rgb_rle.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
    ],
)
def test_colour_bars_of_other_writers(decoder: Decoder, name: str) -> None:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom came without {name}")
    rgb = pixels(decoder, Path(str(path)))
    for row, colour in BARS.items():
        assert_close(rgb[row, 50], np.array(colour), 5)


def assert_close(found: NDArray[Any], expected: NDArray[Any], tolerance: float) -> None:
    """Assert that no sample differs by more than `tolerance` levels."""
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= tolerance
