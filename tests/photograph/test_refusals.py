"""Whatever is wrong with a file is Refused by its own code."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jpeg_ls
import numpy as np
import pytest
from openjpeg.utils import encode_array
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import (
    MPEG4HP41,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cds_plugin.decoder import Decoder
from cds_plugin.errors import Refused, Unavailable
from cds_plugin.photograph import MINIMUM_SIDE, check_decodable, read_header
from cds_plugin.study import Rgb

from .conftest import Write, make_photograph

MAX_PIXELS = 100_000
Change = Callable[[Dataset], Any]


def refusal(decoder: Decoder, path: Path, max_pixels: int = MAX_PIXELS) -> Refused:
    """Return the refusal of a file."""
    with pytest.raises(Refused) as caught:
        decoder.decode(path, max_pixels)
    assert caught.value.message
    assert caught.value.action
    return caught.value


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("not_8_bit", {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}),
        ("not_8_bit", {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}),
        ("not_8_bit", {"PixelRepresentation": 1}),
        ("not_colour", {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}),
        ("not_colour", {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME1"}),
        ("unsupported_colour", {"SamplesPerPixel": 4, "PhotometricInterpretation": "CMYK"}),
        ("unsupported_colour", {"SamplesPerPixel": 1, "PhotometricInterpretation": "RGB"}),
        ("unsupported_colour", {"PhotometricInterpretation": "YBR_PARTIAL_420"}),
        ("unsupported_colour", {"PhotometricInterpretation": ["RGB", "RGB"]}),
        ("no_pixels", {"Rows": 0}),
        ("no_pixels", {"Columns": 0}),
        ("no_pixel_data", {"PixelData": b""}),
        ("too_small", {"Columns": 1}),
        ("too_small", {"Rows": MINIMUM_SIDE - 1}),
        ("too_many_pixels", {"Rows": 60000, "Columns": 60000}),
        ("damaged_pixels", {"NumberOfFrames": 2}),
        ("too_many_frames", {"NumberOfFrames": -1}),
        ("missing_uid", {"SOPInstanceUID": ""}),
        ("missing_uid", {"StudyInstanceUID": None}),
        ("invalid_uid", {"SOPClassUID": '"1.2.840.10008.5.1.4.1.1.77.1.4"'}),
        ("invalid_uid", {"SeriesInstanceUID": "1.2.03"}),
        ("invalid_uid", {"SeriesInstanceUID": ["1.2.3", "1.2.4"]}),
        ("invalid_uid", {"StudyInstanceUID": "1." + "2" * 70}),
        ("damaged_pixels", {"Rows": 120}),
    ],
)
def test_a_header_that_promises_no_photograph(
    decoder: Decoder, photograph: Dataset, write: Write, code: str, changes: dict[str, Any]
) -> None:
    assert refusal(decoder, write(photograph, **changes)).code == code


@pytest.mark.parametrize(
    "missing", ["Rows", "Columns", "PixelData", "BitsAllocated", "PhotometricInterpretation"]
)
def test_missing_elements(decoder: Decoder, photograph: Dataset, write: Write, missing: str) -> None:
    delattr(photograph, missing)
    code = refusal(decoder, write(photograph)).code
    assert code in {"not_an_image", "no_pixel_data", "not_8_bit", "unsupported_colour"}


def test_unknown_compression(decoder: Decoder, photograph: Dataset, write: Write) -> None:
    assert refusal(decoder, write(photograph, MPEG4HP41, b"\0" * 100)).code == "unsupported_transfer_syntax"


def test_files_that_are_not_dicom(decoder: Decoder, tmp_path: Path) -> None:
    for number, content in enumerate(
        (b"", b"\0" * 10, b"hello " * 100, b"\xff\xd8\xff\xe0" * 50, b"\0" * 128 + b"DICX")
    ):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(content)
        assert refusal(decoder, path).code == "not_dicom"


def test_a_file_that_is_not_there(decoder: Decoder, tmp_path: Path) -> None:
    for path in (tmp_path / "absent.dcm", tmp_path):
        with pytest.raises(Unavailable, match="unreadable_file"):
            decoder.decode(path, MAX_PIXELS)


def jpeg(rgb: Rgb, **options: Any) -> bytes:
    """Return a JPEG of Pillow's."""
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", **options)
    return stream.getvalue()


ENCODERS = {
    JPEGBaseline8Bit: jpeg,
    JPEGExtended12Bit: jpeg,
    JPEG2000Lossless: lambda rgb: encode_array(rgb, photometric_interpretation=1),
    JPEGLSLossless: lambda rgb: bytes(jpeg_ls.encode_array(rgb, interleave_mode=2)),
}


@pytest.mark.parametrize("syntax", ENCODERS)
def test_a_stream_larger_than_its_header(
    decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write, syntax: str
) -> None:
    frame = ENCODERS[syntax](np.tile(picture, (4, 4, 1)))
    assert refusal(decoder, write(photograph, syntax, frame)).code == "stream_differs_from_header"


def test_a_stream_that_claims_a_giant(
    decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write
) -> None:
    frame = bytearray(jpeg(picture))
    at = frame.find(b"\xff\xc0") + 5
    frame[at : at + 4] = struct.pack(">HH", 65500, 65500)
    assert (
        refusal(decoder, write(photograph, JPEGBaseline8Bit, bytes(frame))).code
        == "stream_differs_from_header"
    )


def test_a_grey_stream_behind_a_colour_header(
    decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write
) -> None:
    frame = jpeg(picture[..., 0])
    assert refusal(decoder, write(photograph, JPEGBaseline8Bit, frame)).code == "stream_differs_from_header"


@pytest.mark.slow
@pytest.mark.parametrize("syntax", [*ENCODERS, JPEGLosslessSV1, RLELossless, HTJ2KLossless])
def test_truncated_and_damaged_streams(decoder: Decoder, picture: Rgb, write: Write, syntax: str) -> None:
    whole = ENCODERS.get(syntax, jpeg)(picture)
    noise = np.random.default_rng(1).bytes(500)
    for frame in (whole[: len(whole) // 2], whole[:40], b"\0" * 64, noise):
        error = refusal(decoder, write(make_photograph(picture), syntax, frame))
        assert error.code in {"damaged_pixels", "stream_differs_from_header"}


def test_files_cut_short_anywhere(
    decoder: Decoder, photograph: Dataset, write: Write, tmp_path: Path
) -> None:
    whole = write(photograph).read_bytes()
    for share in (0.001, 0.003, 0.006, 0.008, 0.01, 0.012, 0.5, 0.999):
        path = tmp_path / f"cut-{share}"
        path.write_bytes(whole[: int(len(whole) * share)])
        refusal(decoder, path)


def test_a_file_cut_within_its_encoded_pixels(
    decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write
) -> None:
    path = write(photograph, JPEGBaseline8Bit, jpeg(picture), PhotometricInterpretation="YBR_FULL_422")
    path.write_bytes(path.read_bytes()[:-600])
    assert refusal(decoder, path).code == "damaged_pixels"


def test_max_pixels_is_inclusive(decoder: Decoder, picture: Rgb, photograph: Dataset, write: Write) -> None:
    path, count = write(photograph), picture.shape[0] * picture.shape[1]
    assert refusal(decoder, path, count - 1).code == "too_many_pixels"
    assert decoder.decode(path, count).rgb.shape == picture.shape


def test_a_narrow_picture_works_from_the_minimum_side_on(
    decoder: Decoder, picture: Rgb, write: Write
) -> None:
    narrow = np.ascontiguousarray(picture[:, :MINIMUM_SIDE])
    np.testing.assert_array_equal(decoder.decode(write(make_photograph(narrow)), MAX_PIXELS).rgb, narrow)


def test_a_refusal_holds_nothing_of_the_patient(decoder: Decoder, photograph: Dataset, write: Write) -> None:
    path = write(photograph, SOPClassUID="Drawn^Person", PatientID="DRAWN-1")
    error = refusal(decoder, path)
    assert "DRAWN" not in str(error).upper()
    assert str(path) not in str(error)


def test_check_decodable_is_pure(photograph: Dataset, write: Write) -> None:
    header = read_header(write(photograph))
    before = header.to_json()
    check_decodable(header, MAX_PIXELS)
    assert header.to_json() == before
