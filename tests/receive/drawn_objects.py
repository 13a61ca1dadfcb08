"""Small DICOM objects for the tests of the listener, drawn here."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    generate_uid,
)

DERMOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.7"
VL_PHOTOGRAPHIC = "1.2.840.10008.5.1.4.1.1.77.1.4"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


def a_photograph(
    study: str | None = None,
    *,
    side: int = 16,
    sop_class: str = DERMOSCOPIC,
    transfer_syntax: str = ExplicitVRLittleEndian,
    seed: int = 0,
    patient_id: str = "P1",
) -> FileDataset:
    """Return a square RGB picture of random pixels as a whole object."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = transfer_syntax
    picture = FileDataset(
        "",
        {},
        file_meta=meta,
        preamble=b"\0" * 128,
        is_implicit_VR=transfer_syntax == ImplicitVRLittleEndian,
        is_little_endian=transfer_syntax != ExplicitVRBigEndian,
    )
    picture.SOPClassUID = sop_class
    picture.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    picture.StudyInstanceUID = study or generate_uid()
    picture.SeriesInstanceUID = generate_uid()
    picture.PatientID = patient_id
    picture.PatientName = "Test^Patient"
    picture.ImageType = ["ORIGINAL", "PRIMARY"]
    picture.Modality = "XC"
    picture.Rows = picture.Columns = side
    picture.SamplesPerPixel = 3
    picture.BitsAllocated = picture.BitsStored = 8
    picture.HighBit = 7
    picture.PixelRepresentation = 0
    picture.PlanarConfiguration = 0
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    _set_pixels(picture, pixels, transfer_syntax)
    return picture


def _set_pixels(picture: Dataset, pixels: np.ndarray, transfer_syntax: str) -> None:
    picture.PhotometricInterpretation = "RGB"
    picture.PixelData = pixels.tobytes()
    picture["PixelData"].VR = "OB"
    if transfer_syntax == JPEGBaseline8Bit:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        picture.PhotometricInterpretation = "YBR_FULL_422"
        picture.PixelData = encapsulate([buffer.getvalue()])
        picture["PixelData"].is_undefined_length = True


def written(picture: FileDataset, path: Path) -> Path:
    """Write an object as a DICOM file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save_as(path, enforce_file_format=True)
    return path
