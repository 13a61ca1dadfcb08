"""The same pictures with and without age, sex and site of the index; a pipeline that may use a header's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from answering_models import Classifier, Opinion, Segmenter, answering_pipeline
from evaluation_cases import POINT, a_case, a_lesion, an_observation, probabilities

from cds_bundles.metric_resampling import estimates
from cds_plugin.decoder import Decoder
from cds_plugin.dicomize import Dicomizer
from cds_plugin.photograph import ClinicalFacts, Photograph
from cds_plugin.results.report import statements
from cds_plugin.study import Lesion, OperatingPoint
from cds_worker.evaluation.facts import FactsReading
from cds_worker.evaluation.task import TaskName
from cds_worker.evaluation.tasks import task_of
from cds_worker.picture import findings_json


@dataclass
class AgeTells(Classifier):
    """Calls a melanoma whatever it sees of somebody over 60; says nothing new of who has no age."""

    def informed(self, opinions: Sequence[Any], facts: ClinicalFacts) -> Sequence[Opinion]:
        if facts.age_years is None:
            return [Opinion(tuple(each.probabilities)) for each in opinions]
        finding = "mel" if facts.age_years > 60 else "nv"
        return [Opinion(probabilities(finding, 0.8), (finding,), facts=("age",)) for _ in opinions]


PAIRS = [
    (a_case(0, "mel", age=80.0), an_observation(a_lesion("nv"))),
    (a_case(1, "nv", age=20.0), an_observation(a_lesion("mel"))),
    (a_case(2, "nv", age=30.0), an_observation(a_lesion("nv"))),
    (a_case(3, "mel"), an_observation(a_lesion("mel"))),
    (a_case(4, "mel", age=80.0), an_observation()),
]


def figures(in_use: bool, pairs: Sequence[Any] = PAIRS) -> dict[str, Any]:
    facts = FactsReading(AgeTells(), OperatingPoint(0.4, 0.95, 0.9), in_use)
    task = task_of(TaskName.CLASSIFICATION, POINT, facts)
    rows = [task.row(*pair) for pair in pairs]
    found = estimates(task.measures(rows), [row.case.lesion_id for row in rows], "fold 0", 50)
    notes = " ".join(task.notes(rows))
    assert ("findings.use_patient_facts" in notes) == any("with_facts" in name for name in found)
    return {name: estimate.as_json() for name, estimate in found.items()}


def test_the_same_pictures_are_counted_twice() -> None:
    found = figures(in_use=False)
    assert found["accuracy"]["value"] == pytest.approx(2 / 5) and found["accuracy"]["n"] == 5
    assert found["without_facts_accuracy"]["value"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["with_facts_accuracy"]["value"] == 1.0
    assert found["with_facts_malignancy_auc"]["value"] == 1.0
    assert {found[f"{kind}_facts_accuracy"]["n"] for kind in ("with", "without")} == {3}
    assert found["with_facts_malignancy_sensitivity"]["n"] == 1


def test_facts_in_use_make_the_main_figures() -> None:
    found = figures(in_use=True)
    assert found["accuracy"]["value"] == pytest.approx(4 / 5)
    assert found["with_facts_accuracy"]["value"] == 1.0


def test_an_index_without_facts_has_no_figures_with_them() -> None:
    assert not any("facts" in name for name in figures(True, [PAIRS[3]]))


@pytest.fixture(scope="module")
def aged(tmp_path_factory: pytest.TempPathFactory) -> Photograph:
    """A drawn photograph whose header gives an age."""
    from_header = _drawn(tmp_path_factory.mktemp("aged"))
    from_header.header.PatientAge = "070Y"
    return from_header


def _drawn(folder: Path) -> Photograph:
    picture = folder / "picture.png"
    cv2.imwrite(str(picture), np.full((120, 160, 3), 180, np.uint8))
    with Decoder() as decoder:
        return decoder.decode(Dicomizer(folder, decoder).add(picture), 10**6)


@pytest.mark.parametrize(("use_facts", "used", "threshold"), [(False, (), 0.5), (True, ("age",), 0.4)])
def test_a_header_counts_where_the_settings_say_so(
    aged: Photograph, use_facts: bool, used: tuple[str, ...], threshold: float
) -> None:
    analysis = answering_pipeline(Segmenter(), use_facts).analyse(aged)
    assert analysis.patient_facts == used
    assert analysis.operating_point and analysis.operating_point.malignancy_threshold == threshold
    assert findings_json(analysis, None)["patient_facts"] == list(used)
    said = [text for text in statements(analysis) if "patient's age" in text]
    assert bool(said) == use_facts
    assert "70" not in " ".join(said)
    assert all(isinstance(each, Lesion) for each in analysis.lesions)
