"""The same pictures judged with and without age, sex and site, as far as the index holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cds_bundles.metric_resampling import Bools, Floats, Measure, Places
from cds_plugin.photograph import ClinicalFacts
from cds_plugin.study import Lesion, OperatingPoint
from cds_worker.classification import ClassificationPredictor, Opinion
from cds_worker.evaluation.cases import Case
from cds_worker.pipeline import Pipeline

WITH, WITHOUT = "with_facts_", "without_facts_"


@dataclass(frozen=True, slots=True)
class Alone:
    """A lesion's answer from the picture alone, as the classifier's predictor gave it."""

    probabilities: tuple[float, ...]
    prediction_set: tuple[str, ...]
    ood_score: float
    appearance: tuple[float, ...]
    facts: tuple[str, ...] = ()

    @classmethod
    def of(cls, lesion: Lesion) -> Alone:
        """Return the answer that `lesion` was made from."""
        return cls(
            lesion.probabilities,
            tuple(each.value for each in lesion.prediction_set),
            lesion.ood_score or 0.0,
            lesion.appearance.vector if lesion.appearance else (),
        )


@dataclass(frozen=True, slots=True)
class FactsReading:
    """What makes of an answer from the picture alone one that knows the facts too."""

    classifier: ClassificationPredictor
    point: OperatingPoint
    """Where malignancy is flagged once facts were used."""
    in_use: bool
    """Whether the settings use facts: then the main figures rest on them."""

    @classmethod
    def of(cls, pipeline: Pipeline) -> FactsReading:
        """Return the reading of the pipeline's bundle and settings."""
        return cls(pipeline.classifier, pipeline.operating_points.with_facts, pipeline.use_patient_facts)

    def informed(self, case: Case, lesion: Lesion) -> Opinion:
        """Return the opinion on a lesion of `case`, with what the index says of the patient."""
        facts = ClinicalFacts(case.age, case.sex, case.site)
        return self.classifier.informed([Alone.of(lesion)], facts)[0]


def of_part(measures: Mapping[str, Measure], places: Places, count: int, prefix: str) -> dict[str, Measure]:
    """Return measures of the rows at `places` as measures of all `count` rows, their names prefixed."""
    return {prefix + name: _spread(measure, places, count) for name, measure in measures.items()}


def _spread(measure: Measure, places: Places, count: int) -> Measure:
    amounts = np.zeros(count)
    amounts[places] = measure.amounts

    def compute(weights: Floats) -> Floats:
        return measure.compute(weights[:, places])

    def rows(part: Bools) -> Bools:
        whole = np.zeros(count, np.bool_)
        whole[places] = part
        return whole

    pair = None if measure.pair is None else (rows(measure.pair[0]), rows(measure.pair[1]))
    return Measure(compute, amounts, measure.unit, measure.share, pair, measure.centred)
