"""What marks every finished object: patient, study, device, algorithms, dates and the research notice."""

from __future__ import annotations

import re
from datetime import timedelta, timezone
from typing import Any

from highdicom import AlgorithmIdentificationSequence, ContributingEquipment, SOPClass
from pydicom.dataset import Dataset
from pydicom.uid import VLPhotographicImageStorage

from cds_plugin.elements import element_text, element_value
from cds_plugin.results.codes import ARTIFICIAL_INTELLIGENCE, PROCESSING_EQUIPMENT
from cds_plugin.results.context import ResultContext
from cds_plugin.results.identity import MANUFACTURER, MODEL_NAME, SOFTWARE_VERSION
from cds_plugin.results.source import Source
from cds_plugin.results.uids import derive_uid, device_uid
from cds_plugin.study import BundleIdentity, ResultKind

IMPLEMENTATION_CLASS_UID = derive_uid("cds-plugin", "implementation")
IMPLEMENTATION_VERSION_NAME = f"CDS_PLUGIN_{SOFTWARE_VERSION}"[:16]

_LO_LIMIT = 64
_SERIES_NUMBERS = {
    ResultKind.SEGMENTATION: 9100,
    ResultKind.STRICT_SEGMENTATION: 9110,
    ResultKind.REPORT: 9200,
    ResultKind.OVERLAY: 9300,
    ResultKind.HEAT_MAP: 9310,
    ResultKind.PRESENTATION: 9400,
    ResultKind.PDF: 9500,
}


def object_arguments(context: ResultContext, kind: ResultKind) -> dict[str, Any]:
    """Return the keyword arguments that every highdicom object of a picture takes.

    They are its series and instance, and the equipment (PS3.3 C.7.5.1, C.7.5.2): the product with its
    bundles, where another bundle gives another serial number.
    """
    bundles = context.analysis.bundles
    return {
        "series_instance_uid": context.series_instance_uid(kind),
        "series_number": _SERIES_NUMBERS[kind],
        "sop_instance_uid": context.sop_instance_uid(kind),
        "instance_number": context.source.frame or 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL_NAME,
        "software_versions": [SOFTWARE_VERSION, *(long_string(f"{b.name} {b.version}") for b in bundles)],
        "device_serial_number": device_uid(bundles).rsplit(".", 1)[1],
    }


def algorithm_identification(bundle: BundleIdentity) -> AlgorithmIdentificationSequence:
    """Return the Algorithm Identification macro (PS3.3 10.16) of one bundle."""
    return AlgorithmIdentificationSequence(
        name=long_string(bundle.name),
        family=ARTIFICIAL_INTELLIGENCE,
        version=long_string(bundle.version),
        source=MANUFACTURER,
        parameters={"bundle_sha256": bundle.sha256},
    )


def finish(result: SOPClass, context: ResultContext, series_description: str) -> None:
    """Put on `result` what every object of ours carries, and take off what changes from run to run."""
    _copy_patient_and_study(result, context.source)
    result.SeriesDescription = long_string(series_description)
    result.DeviceUID = device_uid(context.analysis.bundles)
    result.ContributingEquipmentSequence = [_contribution(each) for each in context.analysis.bundles]
    result.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    result.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    _date(result, context)


def long_string(text: str) -> str:
    """Return `text` as a Long String holds it: ASCII, no backslash, at most 64 characters."""
    return plain_text(text)[:_LO_LIMIT].rstrip()


def plain_text(text: str) -> str:
    """Return `text` in ASCII, so that it can be written in whatever character set the source uses."""
    return text.replace("\\", "/").encode("ascii", "replace").decode("ascii")


def _copy_patient_and_study(result: SOPClass, source: Source) -> None:
    header = Dataset()
    header.update(source.header)
    # highdicom chooses the modules to copy by SOP class; all photographs have the same ones.
    header.add_new("SOPClassUID", "UI", VLPhotographicImageStorage)
    result.copy_patient_and_study_information(header)
    if character_set := element_value(source.header, "SpecificCharacterSet"):
        result.SpecificCharacterSet = character_set


def _contribution(bundle: BundleIdentity) -> ContributingEquipment:
    return ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=PROCESSING_EQUIPMENT,
        manufacturer_model_name=long_string(bundle.name),
        software_versions=long_string(bundle.version),
        device_serial_number=bundle.sha256,
        contribution_description="Model bundle; the serial number is the SHA-256 of its files",
    )


_UTC_OFFSET = re.compile(r"([+-])([01]\d)([0-5]\d)")
# &ZZXX, PS3.3 C.12.1.1.8
_DATES = ("InstanceCreationDate", "ContentDate", "DateOfSecondaryCapture", "PresentationCreationDate")
_TIMES = ("InstanceCreationTime", "ContentTime", "TimeOfSecondaryCapture", "PresentationCreationTime")


def _date(result: Dataset, context: ResultContext) -> None:
    """Date the object in the source's zone, because its study dates are copied; else in the local one."""
    offset = element_text(context.source.header, "TimezoneOffsetFromUTC")
    zone = None
    if match := _UTC_OFFSET.fullmatch(offset):
        sign, hours, minutes = match.groups()
        zone = timezone(int(f"{sign}1") * timedelta(hours=int(hours), minutes=int(minutes)))
        result.TimezoneOffsetFromUTC = offset
    moment = context.created.astimezone(zone)
    for keyword in (each for each in _DATES if each in result):
        setattr(result, keyword, moment.strftime("%Y%m%d"))
    for keyword in (each for each in _TIMES if each in result):
        setattr(result, keyword, moment.strftime("%H%M%S"))
