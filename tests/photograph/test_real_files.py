"""Real third-party files: malformed DICOM is refused and never crashes, real pictures come through true."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from cds_plugin.decoder import Decoder
from cds_plugin.dicomize import dicomize
from cds_plugin.errors import Refused
from cds_plugin.photograph import read_header

pytestmark = pytest.mark.slow

MAX_PIXELS = 120_000_000
QUOTED = ("SOPClassUID", "Modality", "PatientID", "PatientName")


def test_quoted_headers_are_refused(decoder: Decoder, derm_test_data: Path) -> None:
    files = sorted((derm_test_data / "isic2020_dicom").glob("*.dcm"))
    assert len(files) == 11
    for path in files:
        assert '"' in read_header(path).SOPClassUID
        with pytest.raises(Refused, match="invalid_uid"):
            decoder.decode(path, MAX_PIXELS)


def test_their_pixels_are_true_once_the_quotes_are_gone(
    decoder: Decoder, derm_test_data: Path, tmp_path: Path
) -> None:
    files = sorted((derm_test_data / "isic2020_dicom").glob("*.dcm"), key=lambda path: path.stat().st_size)
    for path in files[:4]:
        dataset = pydicom.dcmread(path)
        for keyword in QUOTED:
            setattr(dataset, keyword, str(dataset[keyword].value).strip('"'))
        repaired = tmp_path / path.name
        dataset.save_as(repaired)
        rgb = decoder.decode(repaired, MAX_PIXELS).rgb
        reference = pydicom.dcmread(repaired).pixel_array
        difference = np.abs(rgb.astype(int) - reference)
        assert difference.mean() < 1.5
        red, _, blue = rgb.reshape(-1, 3).mean(axis=0)
        assert red > blue  # skin


def test_whole_frames_become_valid_objects(
    decoder: Decoder, derm_test_data: Path, tmp_path: Path, dciodvfy: Callable[[Path], list[str]]
) -> None:
    images = sorted((derm_test_data / "ham10000_full_frame").glob("*.jpg"))
    made = dicomize(images, tmp_path, decoder=decoder)
    assert len(made) == len(images) == 24
    for image, path in zip(images, made, strict=True):
        np.testing.assert_array_equal(decoder.decode(path, MAX_PIXELS).rgb, np.asarray(Image.open(image)))
    assert [error for path in made[:4] for error in dciodvfy(path)] == []
