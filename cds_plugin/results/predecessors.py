"""The reports that a new report follows, as its Predecessor Documents Sequence (PS3.3 C.17.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from cds_plugin.results import codes


class Succession(StrEnum):
    """What a new report is to an earlier one."""

    REPLACES = "replaces"
    """Of the same picture: the earlier one holds no more."""
    ADDS_TO = "adds-to"
    """Of another picture of the study: the earlier one goes on to hold."""


@dataclass(frozen=True, slots=True)
class Predecessor:
    """An earlier report of this product, and what the new one is to it.

    `frame` is set where it is followed by the report on that frame of an object of several, and no other.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    succession: Succession
    frame: int | None = None


PURPOSES: Mapping[Succession, Code] = {
    Succession.REPLACES: codes.REPLACED_REPORT,
    Succession.ADDS_TO: codes.ADDENDED_REPORT,
}


def predecessor_items(predecessors: Iterable[Predecessor]) -> list[Dataset]:
    """Return the items of Predecessor Documents Sequence (0040,A360): one per study, its series below.

    Each referenced document carries its Purpose of Reference (CID 7009).
    """
    ordered = sorted(predecessors, key=_hierarchy)
    return [_study(uid, list(each)) for uid, each in groupby(ordered, key=lambda one: one.study_instance_uid)]


def _hierarchy(each: Predecessor) -> tuple[str, str, str]:
    return each.study_instance_uid, each.series_instance_uid, each.sop_instance_uid


def _study(study_instance_uid: str, predecessors: list[Predecessor]) -> Dataset:
    item = Dataset()
    item.StudyInstanceUID = study_instance_uid
    item.ReferencedSeriesSequence = [
        _series(uid, list(each))
        for uid, each in groupby(predecessors, key=lambda one: one.series_instance_uid)
    ]
    return item


def _series(series_instance_uid: str, predecessors: list[Predecessor]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = series_instance_uid
    item.ReferencedSOPSequence = list(map(_document, predecessors))
    return item


def _document(predecessor: Predecessor) -> Dataset:
    purpose = PURPOSES[predecessor.succession]
    code = Dataset()
    code.CodeValue = purpose.value
    code.CodingSchemeDesignator = purpose.scheme_designator
    code.CodeMeaning = purpose.meaning
    item = Dataset()
    item.ReferencedSOPClassUID = predecessor.sop_class_uid
    item.ReferencedSOPInstanceUID = predecessor.sop_instance_uid
    item.PurposeOfReferenceCodeSequence = [code]
    return item
