"""DICOM objects to be sent: drawn pictures, JPEG of about 33 kB or raw of 0.8 MB, with fresh UIDs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

from cds_plugin.phantom import draw_phantom

VL_PHOTOGRAPHIC = "1.2.840.10008.5.1.4.1.1.77.1.4"
JPEG_BYTES = 33_000
RAW_SIDE = 520
"""520 x 520 pixels of RGB are 811 kB."""
JPEG_SIDE = 600


class Kind(StrEnum):
    """How the pixels are encoded."""

    JPEG = "jpeg"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class Pixels:
    """The encoded pixels that every object of a kind carries."""

    kind: Kind
    side: int
    encoded: bytes


def drawn(kind: Kind) -> Pixels:
    """Return one drawn dermoscopic picture; a JPEG has the largest quality within JPEG_BYTES."""
    picture = Image.fromarray(draw_phantom(1).rgb)
    if kind is Kind.RAW:
        scaled = picture.resize((RAW_SIDE, RAW_SIDE))
        return Pixels(kind, RAW_SIDE, np.asarray(scaled).tobytes())
    scaled = picture.resize((JPEG_SIDE, JPEG_SIDE))
    return Pixels(kind, JPEG_SIDE, next(each for each in _jpegs(scaled) if len(each) <= JPEG_BYTES))


def write_study(pixels: Pixels, count: int, folder: Path) -> list[Path]:
    """Write `count` objects of one new study into `folder` and return their paths."""
    folder.mkdir(parents=True)
    study, series = generate_uid(), generate_uid()
    paths = []
    for number in range(count):
        path = folder / f"{number:04}.dcm"
        _object(pixels, study, series, number).save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _jpegs(picture: Image.Image) -> Iterator[bytes]:
    for quality in range(98, 5, -1):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        yield buffer.getvalue()


def _object(pixels: Pixels, study: str, series: str, number: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = VL_PHOTOGRAPHIC
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = JPEGBaseline8Bit if pixels.kind is Kind.JPEG else ExplicitVRLittleEndian
    picture = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    picture.SOPClassUID = VL_PHOTOGRAPHIC
    picture.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    picture.StudyInstanceUID, picture.SeriesInstanceUID = study, series
    picture.StudyDate, picture.StudyTime = "20260131", "120000"
    picture.PatientID, picture.PatientName = "BENCH", "Bench^Mark"
    picture.PatientBirthDate, picture.PatientSex = "19700101", "O"
    picture.AccessionNumber, picture.StudyID = "A1", "1"
    picture.Modality, picture.Manufacturer = "XC", "Drawn"
    picture.SeriesNumber, picture.InstanceNumber = 1, number + 1
    picture.ImageType = ["ORIGINAL", "PRIMARY"]
    _set_pixels(picture, pixels)
    return picture


def _set_pixels(picture: FileDataset, pixels: Pixels) -> None:
    picture.Rows = picture.Columns = pixels.side
    picture.SamplesPerPixel, picture.PlanarConfiguration, picture.PixelRepresentation = 3, 0, 0
    picture.BitsAllocated = picture.BitsStored = 8
    picture.HighBit = 7
    if pixels.kind is Kind.JPEG:
        picture.PhotometricInterpretation = "YBR_FULL_422"
        picture.PixelData = encapsulate([pixels.encoded])
        picture["PixelData"].is_undefined_length = True
    else:
        picture.PhotometricInterpretation = "RGB"
        picture.PixelData = pixels.encoded
    picture["PixelData"].VR = "OB"
