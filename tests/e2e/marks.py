"""Values that stand nowhere but in the headers of marked studies, and how to find one of them in bytes."""

from __future__ import annotations

import re
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

NAME = "ZZQNAME^ZZQGIVEN"
PATIENT_ID = "ZZQID7"
OTHER_ID = "ZZQID8"
BIRTH_DATE = "19030207"
DESCRIPTION = "ZZQSTUDY"
VALUES = {
    "PatientName": NAME,
    "PatientID": PATIENT_ID,
    "PatientBirthDate": BIRTH_DATE,
    "AccessionNumber": "ZZQACC7",
    "StudyDescription": DESCRIPTION,
    "SeriesDescription": "ZZQSERIES",
    "ReferringPhysicianName": "ZZQPHYS^ZZQDOC",
    "OperatorsName": "ZZQOPER",
    "InstitutionName": "ZZQHOUSE",
    "PatientComments": "ZZQCOMMENT",
    "ImageComments": "ZZQIMAGE",
}
MARK = re.compile(rb"zzq|1903-?02-?07", re.IGNORECASE)


def marked(path: Path, **other: str) -> Dataset:
    """Return the object in a file with marked values, and write it back."""
    dataset = dcmread(path)
    for keyword, value in (VALUES | other).items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return dataset


def found_in(content: bytes) -> list[str]:
    """Return each mark with what stands around it, also in text of two bytes a letter."""
    flat = content.replace(b"\0", b"")
    return [
        flat[max(0, each.start() - 80) : each.end() + 40].decode(errors="replace")
        for each in MARK.finditer(flat)
    ]
