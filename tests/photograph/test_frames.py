"""Objects of several frames: each frame is a picture of its own, however they are written."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from cds_plugin.decoder import Decoder
from cds_plugin.errors import Refused
from cds_plugin.photograph.checks import MAX_FRAMES
from cds_plugin.study import Rgb

from .conftest import Write

MAX_PIXELS = 100_000


@pytest.fixture
def frames(picture: Rgb) -> list[Rgb]:
    """Return three different frames, each with an odd number of bytes."""
    odd = picture[:, :139]
    return [odd, odd[::-1].copy(), 255 - odd]


def jpeg(frame: Rgb) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def several(photograph: Dataset, frames: list[Rgb]) -> dict[str, Any]:
    """Return the elements that make an object of it, uncompressed."""
    raw = b"".join(each.tobytes() for each in frames)
    rows, columns = frames[0].shape[:2]
    return {
        "Rows": rows,
        "Columns": columns,
        "NumberOfFrames": len(frames),
        "PixelData": raw + b"\0" * (len(raw) % 2),
    }


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_uncompressed_frames_are_exact(
    decoder: Decoder, photograph: Dataset, frames: list[Rgb], write: Write, syntax: str
) -> None:
    path = write(photograph, syntax, **several(photograph, frames))
    for number, frame in enumerate(frames, start=1):
        found = decoder.decode(path, MAX_PIXELS, number)
        np.testing.assert_array_equal(found.rgb, frame)
        assert found.frame == number


def test_compressed_frames_are_exact(
    decoder: Decoder, photograph: Dataset, frames: list[Rgb], write: Write
) -> None:
    rows, columns = frames[0].shape[:2]
    facts = {"rows": rows, "columns": columns, "samples_per_pixel": 3, "photometric_interpretation": "RGB"}
    more = {"bits_allocated": 8, "bits_stored": 8, "pixel_representation": 0, "planar_configuration": 0}
    encoded = [
        RLELosslessEncoder.encode(
            each.tobytes(), encoding_plugin="pydicom", number_of_frames=1, **facts, **more
        )
        for each in frames
    ]
    changes = {**several(photograph, frames), "PixelData": encapsulate(encoded)}
    path = write(photograph, RLELossless, **changes)
    for number, frame in enumerate(frames, start=1):
        np.testing.assert_array_equal(decoder.decode(path, MAX_PIXELS, number).rgb, frame)


@pytest.mark.parametrize("table", ["basic", "none", "extended"])
def test_jpeg_frames_are_told_apart_by_any_table(
    decoder: Decoder, photograph: Dataset, frames: list[Rgb], write: Write, table: str
) -> None:
    streams, changes = [jpeg(each) for each in frames], several(photograph, frames)
    changes["PhotometricInterpretation"] = "YBR_FULL_422"
    if table == "extended":
        data, offsets, lengths = encapsulate_extended(streams)
        changes |= {"PixelData": data, "ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    else:
        changes["PixelData"] = encapsulate(streams, has_bot=table == "basic")
    path = write(photograph, JPEGBaseline8Bit, **changes)
    for number, stream in enumerate(streams, start=1):
        expected = np.asarray(Image.open(io.BytesIO(stream)))
        np.testing.assert_array_equal(decoder.decode(path, MAX_PIXELS, number).rgb, expected)


@pytest.mark.parametrize("number", [0, 4])
def test_a_frame_that_is_not_there(
    decoder: Decoder, photograph: Dataset, frames: list[Rgb], write: Write, number: int
) -> None:
    path = write(photograph, **several(photograph, frames))
    with pytest.raises(Refused) as caught:
        decoder.decode(path, MAX_PIXELS, number)
    assert caught.value.code == "no_such_frame"


@pytest.mark.parametrize(
    ("count", "max_pixels", "code"),
    [
        (-1, MAX_PIXELS, "too_many_frames"),
        (MAX_FRAMES + 1, 10**9, "too_many_frames"),
        (3, 3 * 111 * 139 - 1, "too_many_pixels"),
        (4, MAX_PIXELS, "damaged_pixels"),
    ],
)
def test_bounds(
    decoder: Decoder,
    photograph: Dataset,
    frames: list[Rgb],
    write: Write,
    count: int,
    max_pixels: int,
    code: str,
) -> None:
    path = write(photograph, **{**several(photograph, frames), "NumberOfFrames": count})
    with pytest.raises(Refused) as caught:
        decoder.decode(path, max_pixels, 1)
    assert caught.value.code == code
