"""What a task is: which pictures it takes, what it keeps of each, and which figures all of them make."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

from cds_bundles.metric_resampling import Measure
from cds_bundles.skin_tone import SkinTone
from cds_plugin.study import Verdict
from cds_worker.evaluation.cases import Case
from cds_worker.evaluation.observing import Observation

Cells = dict[str, object]
"""A row of pictures.csv."""


class TaskName(StrEnum):
    """What can be measured."""

    CLASSIFICATION = "classification"
    SEGMENTATION = "segmentation"
    INSTANCES = "instances"
    QUALITY = "quality"


@dataclass(frozen=True, slots=True)
class Row:
    """What every task keeps of a picture."""

    case: Case
    verdict: Verdict
    finds: int
    """How many lesions the pipeline found."""
    tone: SkinTone

    def cells(self) -> Cells:
        """Return the columns that stand in every pictures.csv."""
        return {
            "path": str(self.case.path),
            "lesion_id": self.case.lesion_id,
            "dx": self.case.dx,
            "verdict": self.verdict.value,
            "lesions": self.finds,
            "skin_tone": self.tone.name,
            "ita_degrees": "" if self.tone.ita_degrees is None else round(self.tone.ita_degrees, 1),
        }


R = TypeVar("R", bound=Row)


class Task(ABC, Generic[R]):
    """One measurement."""

    policy: ClassVar[str]
    """How pictures are counted, in words for the report."""
    headline: ClassVar[tuple[str, ...]]
    """The figures that are given for every subgroup, most important first."""

    @abstractmethod
    def takes(self, case: Case) -> bool:
        """Return whether the case carries the label that this task needs."""

    @abstractmethod
    def row(self, case: Case, observation: Observation) -> R:
        """Return what is kept of one picture; raises Refused for a label that can't be used."""

    @abstractmethod
    def measures(self, rows: Sequence[R]) -> dict[str, Measure]:
        """Return the figures by name."""

    @abstractmethod
    def curves(self, rows: Sequence[R], split: str) -> dict[str, Any]:
        """Return what the plots show, as JSON values."""

    def tables(self, rows: Sequence[R]) -> Mapping[str, Sequence[Mapping[str, object]]]:
        """Return CSV files by name, beside pictures.csv."""
        return {}

    def notes(self, rows: Sequence[R]) -> tuple[str, ...]:
        """Return what a reader must know of these figures beyond the policy."""
        return ()


def common(case: Case, observation: Observation) -> tuple[Case, Verdict, int, SkinTone]:
    """Return the fields of `Row`, in their order."""
    return case, observation.quality.verdict, len(observation.lesions), observation.tone
