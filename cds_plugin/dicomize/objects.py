"""One Dermoscopic Photography object from one decoded picture (PS3.3 A.32.11)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sr.coding import Code
from pydicom.uid import (
    PYDICOM_IMPLEMENTATION_UID,
    UID,
    DermoscopicPhotographyImageStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    generate_uid,
)
from pydicom.valuerep import format_number_as_ds

from cds_plugin.dicomize.facts import AcquisitionFacts, Facts, body_site_code
from cds_plugin.photograph import Picture
from cds_plugin.results.identity import MANUFACTURER, SOFTWARE_VERSION
from cds_plugin.results.uids import derive_uid

MODEL_NAME = "cds-plugin dicomize"
NO_SERIAL_NUMBER = "0"
"""Device Serial Number is Type 1, and software has none."""
LOSSY_METHOD = "ISO_10918_1"


@dataclass(frozen=True, slots=True)
class SeriesIdentity:
    """What all objects of one call share."""

    study_instance_uid: UID
    series_instance_uid: UID
    patient_id: str
    at: datetime


def build_object(
    picture: Picture, file_bytes: int, number: int, series: SeriesIdentity, facts: Facts
) -> Dataset:
    """Return the data set with file meta; `number` counts from 1, `file_bytes` is the picture file's size."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = DermoscopicPhotographyImageStorage
    dataset.SOPInstanceUID = new_uid()
    _add_patient(dataset, series, facts)
    _add_study(dataset, series, facts)
    _add_series(dataset, series)
    _add_equipment(dataset, facts.acquisition)
    _add_image(dataset, series, number)
    _add_acquisition(dataset, facts.acquisition)
    _add_pixels(dataset, picture, file_bytes)
    return dataset


def new_uid() -> UID:
    """Return a random UID below 2.25 (PS3.5 B.2)."""
    return generate_uid(prefix=None)


def _add_patient(dataset: Dataset, series: SeriesIdentity, facts: Facts) -> None:
    patient = facts.patient
    dataset.PatientName = patient.name
    dataset.PatientID = series.patient_id
    dataset.PatientBirthDate = patient.birth_date.strftime("%Y%m%d") if patient.birth_date else ""
    dataset.PatientSex = patient.sex or ""


def _add_study(dataset: Dataset, series: SeriesIdentity, facts: Facts) -> None:
    dataset.StudyInstanceUID = series.study_instance_uid
    dataset.StudyID = facts.study.id
    dataset.StudyDate, dataset.StudyTime = _date_and_time(series.at)
    dataset.StudyDescription = facts.study.description
    dataset.AccessionNumber = facts.study.accession_number
    dataset.ReferringPhysicianName = ""


def _add_series(dataset: Dataset, series: SeriesIdentity) -> None:
    dataset.SeriesInstanceUID = series.series_instance_uid
    dataset.SeriesNumber = 1
    dataset.Modality = "DMS"
    dataset.SeriesDescription = "Dermoscopy"
    # The standard leaves the frame of reference to the user; validators ask for one.
    dataset.FrameOfReferenceUID = derive_uid("frame of reference", series.series_instance_uid)
    dataset.PositionReferenceIndicator = ""


def _add_equipment(dataset: Dataset, facts: AcquisitionFacts) -> None:
    """Name the camera where it is known, else the program that made the object (PS3.3 C.7.5.1)."""
    dataset.Manufacturer = facts.manufacturer or MANUFACTURER
    dataset.ManufacturerModelName = facts.manufacturer_model_name or MODEL_NAME
    dataset.DeviceSerialNumber = facts.device_serial_number or NO_SERIAL_NUMBER
    dataset.SoftwareVersions = SOFTWARE_VERSION


def _add_image(dataset: Dataset, series: SeriesIdentity, number: int) -> None:
    dataset.InstanceNumber = number
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.ContentDate, dataset.ContentTime = _date_and_time(series.at)
    dataset.AcquisitionDateTime = "".join(_date_and_time(series.at))
    dataset.PatientOrientation = ""
    dataset.AcquisitionContextSequence = []


def _add_acquisition(dataset: Dataset, facts: AcquisitionFacts) -> None:
    dataset.RecognizableVisualFeatures = "YES" if facts.recognizable_patient else "NO"
    dataset.LightSourcePolarization = facts.light_source_polarization or ""
    dataset.EmitterColorTemperature = None
    dataset.ContactMethod = facts.contact_method or ""
    if facts.contact_method == "CONTACT":
        dataset.ImmersionMedia = facts.immersion_media or ""
    if facts.optical_magnification is None:
        dataset.OpticalMagnificationFactor = None
    else:
        dataset.OpticalMagnificationFactor = format_number_as_ds(facts.optical_magnification)
    if facts.pixel_spacing_mm is not None:
        dataset.PixelSpacing = [format_number_as_ds(facts.pixel_spacing_mm)] * 2
    if facts.laterality is not None:
        dataset.ImageLaterality = facts.laterality
    else:
        dataset.Laterality = ""
    if facts.body_site is not None:
        dataset.AnatomicRegionSequence = [_coded(body_site_code(facts.body_site))]


def _add_pixels(dataset: Dataset, picture: Picture, file_bytes: int) -> None:
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = picture.rgb.shape
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    dataset.LossyImageCompression = "01" if picture.lossy else "00"
    if picture.lossy:
        dataset.LossyImageCompressionMethod = LOSSY_METHOD
        dataset.LossyImageCompressionRatio = round(max(1.0, picture.rgb.nbytes / file_bytes), 2)
    if picture.icc_profile is not None:
        dataset.ICCProfile = _even(picture.icc_profile)
    if picture.jpeg is not None:
        dataset.PhotometricInterpretation = "RGB" if picture.jpeg_is_rgb else "YBR_FULL_422"
        dataset.PixelData = encapsulate([picture.jpeg])
        dataset["PixelData"].VR = "OB"
        _add_file_meta(dataset, JPEGBaseline8Bit)
        return
    dataset.PhotometricInterpretation = "RGB"
    dataset.PixelData = _even(picture.rgb.tobytes())
    dataset["PixelData"].VR = "OB"
    _add_file_meta(dataset, ExplicitVRLittleEndian)


def _add_file_meta(dataset: Dataset, transfer_syntax: UID) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    dataset.file_meta = meta


def _date_and_time(at: datetime) -> tuple[str, str]:
    return at.strftime("%Y%m%d"), at.strftime("%H%M%S")


def _coded(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = (
        code.value,
        code.scheme_designator,
        code.meaning,
    )
    return item


def _even(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)
