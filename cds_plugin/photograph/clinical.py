"""What a header says of patient and lesion that bears on a diagnosis: age, sex and body site."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from cds_plugin.elements import element_text, element_value
from cds_plugin.photograph.sites import site_of_body_part, site_of_code

OLDEST_YEARS = 120.0
"""An age beyond it is a filler value."""
AGE = re.compile(r"(\d{3})([DWMY])")
"""An Age String (PS3.5 6.2)."""
UNITS_IN_A_YEAR = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}
SEXES = {"F": "female", "M": "male"}
DATES = ("AcquisitionDate", "ContentDate", "StudyDate")
MOMENTS = ("Acquisition", "Content", "Study")
ZONE = re.compile(r"([+-])([01]\d)([0-5]\d)")


@dataclass(frozen=True, slots=True)
class ClinicalFacts:
    """Age in years, sex and body site in the words of HAM10000; None or empty where not known."""

    age_years: float | None = None
    sex: str = ""
    site: str = ""


def clinical_facts_of(header: Dataset) -> ClinicalFacts:
    """Return the facts of a header; malformed and impossible ones count as absent."""
    return ClinicalFacts(
        age_years=_age(header),
        sex=SEXES.get(element_text(header, "PatientSex").strip().upper(), ""),
        site=_site(header),
    )


def _age(header: Dataset) -> float | None:
    """Return Patient's Age, else the years from birth to the picture."""
    written = AGE.fullmatch(element_text(header, "PatientAge").strip())
    years = float(written[1]) / UNITS_IN_A_YEAR[written[2]] if written else _years_lived(header)
    return years if years is not None and 0 <= years <= OLDEST_YEARS else None


def _years_lived(header: Dataset) -> float | None:
    born = _date(header, "PatientBirthDate")
    taken = next((found for name in DATES if (found := _date(header, name)) is not None), None)
    return (taken - born).days / UNITS_IN_A_YEAR["D"] if born and taken else None


def moment_of(header: Dataset) -> datetime | None:
    """Return when the picture was taken: its own date and time, else its content's, else its study's.

    In the time zone that the object names (0008,0201), else taken as UTC; a date alone is its midnight.
    """
    zone = _zone(element_text(header, "TimezoneOffsetFromUTC"))
    for name in MOMENTS:
        day, time = (element_text(header, f"{name}{part}").strip() for part in ("Date", "Time"))
        digits = day + (re.sub(r"\D.*", "", time) + "000000")[:6]
        try:
            return datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=zone)
        except ValueError:
            continue
    return None


def _zone(written: str) -> timezone:
    found = ZONE.fullmatch(written.strip())
    if found is None:
        return UTC
    offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-offset if found[1] == "-" else offset)


def _date(header: Dataset, keyword: str) -> date | None:
    try:
        return datetime.strptime(element_text(header, keyword).strip(), "%Y%m%d").date()
    except ValueError:
        return None


def _site(header: Dataset) -> str:
    """Return the site of the first region that is coded, else of the body part in words."""
    regions = element_value(header, "AnatomicRegionSequence")
    if isinstance(regions, Sequence) and regions:
        value, scheme = (
            element_text(regions[0], keyword) for keyword in ("CodeValue", "CodingSchemeDesignator")
        )
        found = site_of_code(value, scheme)
        if found:
            return found
    return site_of_body_part(element_text(header, "BodyPartExamined"))
