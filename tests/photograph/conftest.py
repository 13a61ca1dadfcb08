"""Drawn photographs written as DICOM in every way that a sender may choose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, VLPhotographicImageStorage, generate_uid

from cds_plugin.decoder import Decoder
from cds_plugin.phantom import draw_phantom
from cds_plugin.study import Rgb

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def decoder() -> Iterator[Decoder]:
    """Yield one warm decoder."""
    with Decoder() as running:
        yield running


@pytest.fixture(scope="session")
def picture() -> Rgb:
    """Return a drawn picture of odd height and even width, (111, 140, 3)."""
    return np.ascontiguousarray(draw_phantom(7, width=400, height=300).rgb[100:211, 120:260])


@pytest.fixture
def photograph(picture: Rgb) -> Dataset:
    """Return a valid uncompressed VL Photographic object of `picture`, not yet written."""
    return make_photograph(picture)


def make_photograph(rgb: NDArray[Any]) -> Dataset:
    """Return a valid uncompressed VL Photographic object."""
    dataset = Dataset()
    dataset.SOPClassUID = VLPhotographicImageStorage
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = (
        generate_uid(prefix=None) for _ in range(3)
    )
    dataset.PatientName, dataset.PatientID = "Drawn^Person", "DRAWN-1"
    dataset.Rows, dataset.Columns = rgb.shape[:2]
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "RGB"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelSpacing = [0.02, 0.02]
    raw = rgb.tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a callable that writes a data set, with other elements or an encoded frame where given."""

    def written(
        dataset: Dataset, syntax: UID = ExplicitVRLittleEndian, frame: bytes | None = None, **changes: Any
    ) -> Path:
        dataset.file_meta.MediaStorageSOPClassUID = VLPhotographicImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.file_meta.TransferSyntaxUID = syntax
        if frame is not None:
            dataset.PixelData = encapsulate([frame])
            dataset["PixelData"].VR = "OB"
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        return path

    return written
