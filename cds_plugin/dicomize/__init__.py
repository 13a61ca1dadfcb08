"""JPEG and PNG pictures become Dermoscopic Photography objects (PS3.3 A.32.11): one study, one series."""

from __future__ import annotations

from cds_plugin.dicomize.facts import (
    AcquisitionFacts,
    ContactMethod,
    Facts,
    ImmersionMedia,
    Laterality,
    PatientFacts,
    Polarization,
    Sex,
    StudyFacts,
)
from cds_plugin.dicomize.study import Dicomizer, dicomize, find_pictures

__all__ = [
    "AcquisitionFacts",
    "ContactMethod",
    "Dicomizer",
    "Facts",
    "ImmersionMedia",
    "Laterality",
    "PatientFacts",
    "Polarization",
    "Sex",
    "StudyFacts",
    "dicomize",
    "find_pictures",
]
