"""What is known beside the pixels: patient, study, and how the picture was taken."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum

from pydicom import config
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID
from pydicom.valuerep import validate_value

from cds_plugin.errors import Refused
from cds_plugin.photograph.facts import LARGEST_SPACING_MM

SKIN_OF = "skin of "


class Sex(StrEnum):
    """Patient's Sex (0010,0040)."""

    FEMALE = "F"
    MALE = "M"
    OTHER = "O"


class Polarization(StrEnum):
    """Light Source Polarization (0016,1001)."""

    POLARIZED = "POLARIZED"
    NON_POLARIZED = "NON_POLARIZED"


class ContactMethod(StrEnum):
    """Contact Method (0016,1003)."""

    CONTACT = "CONTACT"
    NON_CONTACT = "NON_CONTACT"


class ImmersionMedia(StrEnum):
    """Immersion Media (0016,1004)."""

    ALCOHOL = "ALCOHOL"
    MINERAL_OIL = "MINERAL_OIL"
    PLASTIC_CAP = "PLASTIC_CAP"
    ULTRASOUND_GEL = "ULTRASOUND_GEL"


class Laterality(StrEnum):
    """Image Laterality (0020,0062)."""

    RIGHT = "R"
    LEFT = "L"
    UNPAIRED = "U"
    BOTH = "B"


@dataclass(frozen=True, slots=True)
class PatientFacts:
    """Who it is; without an ID the study gets one of its own, so that a PACS merges no strangers."""

    id: str | None = None
    name: str = ""
    birth_date: date | None = None
    sex: Sex | None = None

    def __post_init__(self) -> None:
        _check("patient ID", "LO", self.id)
        _check("patient name", "PN", self.name)


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """The study; without a UID it gets a new one, without a time it is now."""

    instance_uid: str | None = None
    id: str = "1"
    at: datetime | None = None
    description: str = "Dermoscopy"
    accession_number: str = ""

    def __post_init__(self) -> None:
        if self.instance_uid is not None and not UID(self.instance_uid).is_valid:
            raise bad_fact("study instance UID", "is no valid UID")
        _check("study ID", "SH", self.id)
        _check("study description", "LO", self.description)
        _check("accession number", "SH", self.accession_number)


@dataclass(frozen=True, slots=True)
class AcquisitionFacts:
    """How the pictures were taken; `pixel_spacing_mm` is the side of a pixel, `body_site` is of CID 4029."""

    body_site: str | None = None
    laterality: Laterality | None = None
    pixel_spacing_mm: float | None = None
    light_source_polarization: Polarization | None = None
    contact_method: ContactMethod | None = None
    immersion_media: ImmersionMedia | None = None
    optical_magnification: float | None = None
    recognizable_patient: bool = False
    manufacturer: str | None = None
    manufacturer_model_name: str | None = None
    device_serial_number: str | None = None

    def __post_init__(self) -> None:
        if self.body_site is not None:
            body_site_code(self.body_site)
        if self.pixel_spacing_mm is not None and not 0 < self.pixel_spacing_mm <= LARGEST_SPACING_MM:
            raise bad_fact("pixel spacing", f"is not within 0 and {LARGEST_SPACING_MM:g} mm")
        magnification = self.optical_magnification
        if magnification is not None and not (math.isfinite(magnification) and magnification > 0):
            raise bad_fact("magnification", "is not a positive number")
        if self.immersion_media is not None and self.contact_method is not ContactMethod.CONTACT:
            raise bad_fact("immersion media", "needs the contact method CONTACT")
        for name in ("manufacturer", "manufacturer_model_name", "device_serial_number"):
            _check(name.replace("_", " "), "LO", getattr(self, name))


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known beside the pixels."""

    patient: PatientFacts = field(default_factory=PatientFacts)
    study: StudyFacts = field(default_factory=StudyFacts)
    acquisition: AcquisitionFacts = field(default_factory=AcquisitionFacts)


def body_site_code(text: str) -> Code:
    """Return the code of a site by its meaning, "skin of" optional (PS3.16 CID 4029); raises Refused."""
    sites: dict[str, Code] = {code.meaning.lower(): code for code in codes.cid4029.concepts.values()}
    wanted = " ".join(text.lower().split())
    found = sites.get(wanted) or sites.get(SKIN_OF + wanted)
    if found is None:
        close = difflib.get_close_matches(SKIN_OF + wanted.removeprefix(SKIN_OF), sites, n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise bad_fact("body site", f"is not in CID 4029{hint}")
    return found


def bad_fact(name: str, problem: str) -> Refused:
    """Return the refusal of a fact."""
    return Refused("bad_fact", f"The {name} {problem}.", "Correct it.")


def _check(name: str, vr: str, value: str | None) -> None:
    if value is None:
        return
    try:
        validate_value(vr, value, config.RAISE)
    except ValueError as error:
        raise bad_fact(name, f"does not fit its field ({vr})") from error
    if "\\" in value:
        raise bad_fact(name, "holds a backslash")
