"""The picture that results refer to: its identity, its spacing, and the header that results may copy from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DermoscopicPhotographyImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    VLPhotographicImageStorage,
)
from pydicom.valuerep import validate_value

from cds_plugin.elements import UNREADABLE, element_text, element_value
from cds_plugin.errors import Refused
from cds_plugin.photograph import frame_count, pixel_spacing_mm

SOURCE_SOP_CLASSES = frozenset(
    {
        DermoscopicPhotographyImageStorage,
        VLPhotographicImageStorage,
        SecondaryCaptureImageStorage,
        MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)

TYPE_2_OF_PATIENT_AND_STUDY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
)
"""Patient (PS3.3 C.7.1.1) and General Study (C.7.2.1): present in every object, empty when not known."""

_PATIENT_SEXES = frozenset({"", "M", "F", "O"})
_STRICT_VRS = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"})
_COPIED_GROUPS = frozenset({0x0008, 0x0010, 0x0012, 0x0018, 0x0020, 0x0028, 0x0032, 0x0038, 0x0040})


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One picture of a study; `header` holds only what can be written again.

    `pixel_spacing_mm` is (between rows, between columns), None unless the picture says it validly. `frame` is
    the number of the picture's frame, 1 and up, in an object of several; None in any other object.
    """

    study_instance_uid: UID
    series_instance_uid: UID
    sop_instance_uid: UID
    sop_class_uid: UID
    pixel_spacing_mm: tuple[float, float] | None
    header: Dataset
    frame: int | None = None

    def refer(self, reference: Dataset) -> Dataset:
        """Put class, instance and frame of the picture on `reference` (PS3.3 10.3) and return it."""
        reference.ReferencedSOPClassUID = self.sop_class_uid
        reference.ReferencedSOPInstanceUID = self.sop_instance_uid
        if self.frame is not None:
            reference.ReferencedFrameNumber = self.frame
        return reference


def read_source(header: Dataset, frame: int | None = 1) -> Source:
    """Return the source that a header describes, of several frames that one, or with None all together.

    Raises Refused when one of its four UIDs is missing or invalid, or it is no kind of photograph.
    """
    sop_class_uid = _required_uid(header, "SOPClassUID")
    if sop_class_uid not in SOURCE_SOP_CLASSES:
        raise Refused(
            "unsupported_source",
            f"results can't be made for SOP class {sop_class_uid}",
            "Send Dermoscopic Photography, VL Photographic or Secondary Capture images.",
        )
    writable = _writable_header(header)
    return Source(
        study_instance_uid=_required_uid(header, "StudyInstanceUID"),
        series_instance_uid=_required_uid(header, "SeriesInstanceUID"),
        sop_instance_uid=_required_uid(header, "SOPInstanceUID"),
        sop_class_uid=sop_class_uid,
        pixel_spacing_mm=pixel_spacing_mm(header),
        header=writable,
        frame=frame if frame_count(header) is not None else None,
    )


def decimals(header: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return exactly `count` finite numbers of an element, else None."""
    value = element_value(header, keyword)
    try:
        numbers = tuple(float(each) for each in value)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _required_uid(header: Dataset, keyword: str) -> UID:
    uid = UID(element_text(header, keyword))
    if not uid.is_valid:
        raise Refused(
            "unusable_uid",
            f"{keyword} of the source is missing or invalid, so no result can refer to it",
            "Correct the object at its sender and send it again.",
        )
    return uid


def _writable_header(header: Dataset) -> Dataset:
    """Return the elements that results may need, without those whose value breaks its VR or enumeration.

    Names, identifiers and descriptions stay as they are: a result must be filed under the same patient.
    """
    writable = Dataset()
    for element in _readable_elements(header):
        if element.VR not in _STRICT_VRS or _is_valid(element):
            writable.add(copy(element))
    if element_value(writable, "PatientSex") not in _PATIENT_SEXES:
        writable.PatientSex = ""
    for keyword in TYPE_2_OF_PATIENT_AND_STUDY:
        if keyword not in writable:
            setattr(writable, keyword, "")
    return writable


def _readable_elements(header: Dataset) -> Iterator[DataElement]:
    for tag in header.keys():  # noqa: SIM118 - iterating a Dataset converts every element
        if BaseTag(tag).group in _COPIED_GROUPS:
            try:
                yield header[tag]
            except UNREADABLE:
                continue


def _is_valid(element: DataElement) -> bool:
    value = element.value
    values = value if element.VM > 1 else [value]
    try:
        for each in values:
            validate_value(element.VR, None if each is None else str(each), config.RAISE)
    except ValueError:
        return False
    return True
