"""What every object of one picture shares: its source, its analysis, its UIDs and the moment it was made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from cds_plugin.results.identity import SOFTWARE_VERSION
from cds_plugin.results.predecessors import Predecessor
from cds_plugin.results.source import TYPE_2_OF_PATIENT_AND_STUDY, Source
from cds_plugin.results.uids import derive_uid
from cds_plugin.study import Analysis, Lesion, ResultKind

RESEARCH_NOTICE = "Research use only, not for diagnosis"


@dataclass(frozen=True, slots=True, eq=False)
class ResultContext:
    """One picture's analysis on its way to DICOM; `created` is aware.

    `predecessors` are the earlier reports that its report follows.
    """

    source: Source
    analysis: Analysis
    revision: int
    created: datetime
    predecessors: tuple[Predecessor, ...] = ()
    strict: bool = False
    """Whether the usual SEG goes without invented geometry."""

    def uid(self, *parts: str) -> UID:
        """Derive a UID from picture, software, bundles, revision, what settings change, and `parts`."""
        return derive_uid(
            SOFTWARE_VERSION,
            *self._picture,
            *(bundle.sha256 for bundle in self.analysis.bundles),
            str(self.revision),
            repr(self.analysis.operating_point),
            repr(self.analysis.patient_facts),
            *(repr((each.tracking_uid, each.prior)) for each in self.analysis.lesions if each.prior),
            *(["strict"] if self.strict else []),
            *parts,
        )

    def sop_instance_uid(self, kind: ResultKind) -> UID:
        """Return the SOP Instance UID of the result of that kind."""
        return self.uid("instance", kind)

    def series_instance_uid(self, kind: ResultKind) -> UID:
        """Return the UID of the series that holds this one result."""
        return self.uid("series", kind)

    def tracking_uid(self, lesion: Lesion) -> UID:
        """Return the UID that ties a segment of the SEG to a group of the SR, over all revisions.

        It follows from the picture and the mask alone, so a re-run that finds the same mask gives the same.
        """
        if lesion.tracking_uid is not None:
            return UID(lesion.tracking_uid)
        twins = sum(_same_mask(each, lesion) for each in self.analysis.lesions if each.number < lesion.number)
        mask = hashlib.sha256(np.packbits(lesion.mask).tobytes()).hexdigest()
        return derive_uid("lesion", *self._picture, str(lesion.bbox.as_list()), mask, *["twin"] * twins)

    @property
    def _picture(self) -> tuple[str, ...]:
        frame = self.source.frame
        return (
            self.source.study_instance_uid,
            self.source.sop_instance_uid,
            *([f"frame {frame}"] if frame is not None else []),
        )


def _same_mask(one: Lesion, other: Lesion) -> bool:
    return one.bbox == other.bbox and np.array_equal(one.mask, other.mask)


def tracking_identifier(lesion: Lesion) -> str:
    """Return the readable name of a lesion, the same in SEG, SR and overlay."""
    return f"Lesion {lesion.number}"


def reference_dataset(source: Source) -> Dataset:
    """Return the least data set that highdicom takes for the picture, its patient left empty.

    Patient and study come back on the finished object, from the header: highdicom warns with the
    patient's name in the log, and refuses objects for values that real senders use.
    """
    reference = Dataset()
    reference.SOPClassUID = source.sop_class_uid
    reference.SOPInstanceUID = source.sop_instance_uid
    reference.StudyInstanceUID = source.study_instance_uid
    reference.SeriesInstanceUID = source.series_instance_uid
    for keyword in TYPE_2_OF_PATIENT_AND_STUDY:
        setattr(reference, keyword, "")
    return reference
