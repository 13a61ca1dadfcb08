"""Fits what is said with a classifier's answers, on lesions it was not trained on, and measures it honestly.

Held-out lesions are few, so each figure is cross-fitted: the lesions are dealt out to `FOLDS` parts, and each
part is judged by what was fitted on the others. What is shipped is then fitted on all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cds_bundles.calibration import (
    COVERAGE,
    SENSITIVITIES,
    Floats,
    Places,
    fit_mixture,
    malignancy,
    operating_points,
    prediction_sets,
    set_thresholds,
)
from cds_bundles.classes import MALIGNANT_COLUMNS
from cds_bundles.classification import LesionLook
from cds_bundles.classifier_data import Lesion, training_and_held_out
from cds_bundles.clinical_facts import (
    FACTS,
    FactsModel,
    KnownFacts,
    fit_facts,
    fit_weight,
    informed,
    names_known,
    only,
)
from cds_bundles.familiarity import Familiarity
from cds_bundles.lesion_answers import Seen, facts_of, see, tones
from cds_bundles.trust import Reading, Trust
from cds_bundles.trust_figures import Answers, figures_of, headline, subgroups

FOLDS = 5
SEED = 7
SPLIT = "HAM10000 fold 0, grouped by lesion, cross-fitted in 5 parts"


@dataclass(slots=True)
class ClassifierTrust:
    """`run()` writes the files `trust` and `familiarity` that go beside the weights, and a `report`."""

    data_root: str
    look: LesionLook
    trust: str
    familiarity: str
    report: str
    training_lesions: int = 3000
    """That `familiarity` is made of; 0 leaves the file as it is: for an unchanged first network."""
    threads: int = 1

    def run(self) -> dict[str, Any]:
        """Looks at the held-out lesions and a sample of the training ones, fits, measures, writes."""
        torch.set_num_threads(self.threads)
        root, report = Path(self.data_root), Path(self.report)
        training, held_out = training_and_held_out(root)
        facts, kept = facts_of(root), report.with_suffix("")
        sample = np.random.default_rng(SEED).permutation(len(training))[: self.training_lesions]
        fresh = see(self.look, held_out, facts, kept)
        if len(sample):
            known = see(self.look.of_first(), [training[place] for place in sample], facts, kept)
            Familiarity.of(known.features, fresh.features).save(Path(self.familiarity))
        model = facts_model(training, facts)
        fitted(fresh, model).save(Path(self.trust))
        figures = measured(fresh, model, tones(held_out))
        report.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(figures, indent=2))
        return figures


@dataclass(frozen=True, slots=True)
class CrossFit:
    """For each part of the cases what was fitted on all the others."""

    parts: Places
    trusts: tuple[Trust, ...]

    @classmethod
    def of(cls, seen: Seen, model: FactsModel) -> CrossFit:
        """Fits on `seen` without each part in turn."""
        parts = dealt(seen.groups)
        return cls(parts, tuple(fitted(seen.of(parts != part), model) for part in range(FOLDS)))

    def answers(self, seen: Seen, facts: Sequence[KnownFacts] | None = None) -> Answers:
        """What is said of the cases, with these `facts` if any, by what was fitted without them."""
        answers = Answers.empty(len(seen.labels), SENSITIVITIES)
        for part, trust in enumerate(self.trusts):
            places = np.flatnonzero(self.parts == part)
            rows = trust.probabilities(seen.logits[places])
            reading = trust.picture_alone
            if facts is not None:
                evidence = np.stack([trust.facts.evidence(facts[int(place)]) for place in places])
                rows, reading = informed(rows, evidence, trust.facts_weight), trust.with_facts
            answers.rows[places] = rows
            answers.sets[places] = prediction_sets(rows, reading.set_thresholds)
            for wanted, point in reading.operating_points.items():
                answers.flagged[wanted][places] = malignancy(rows) >= point.threshold
        return answers


def measured(seen: Seen, model: FactsModel, skin: Sequence[str] = ()) -> dict[str, Any]:
    """Cross-fitted figures with 95 % intervals over lesions; `skin`: the tone's bin of each case."""
    fit = CrossFit.of(seen, model)
    alone = fit.answers(seen)
    figures = {
        "split": SPLIT,
        "lesions": len(set(seen.groups)),
        **figures_of(alone, seen),
        "subgroups": subgroups(alone, seen, skin),
    }
    told = np.array([bool(names_known(each)) for each in seen.facts])
    if told.any():
        figures["with_facts"] = _with_facts(fit, seen, told)
    if seen.logits.shape[1] > 1:
        figures["variants"] = {
            f"network {number + 1} alone": headline(CrossFit.of(one, model).answers(one), one)
            for number in range(seen.logits.shape[1])
            for one in [seen.by([number])]
        }
    return figures


def _with_facts(fit: CrossFit, seen: Seen, told: NDArray[np.bool_]) -> dict[str, Any]:
    """Figures of the cases with facts: without them, with all that is known, and with one of them."""
    chosen = seen.of(told)
    figures = {
        "picture_alone": headline(fit.answers(seen).of(told), chosen),
        "all_facts": headline(fit.answers(seen, seen.facts).of(told), chosen),
    }
    for name in FACTS:
        facts = [only(each, name) for each in seen.facts]
        figures[f"{name}_only"] = headline(fit.answers(seen, facts).of(told), chosen)
    return figures


def facts_model(training: Sequence[Lesion], facts: Mapping[str, KnownFacts]) -> FactsModel:
    """What the facts alone say, learned from the training lesions that have any; one row a lesion."""
    first: dict[str, tuple[KnownFacts, int]] = {}
    for lesion in training:
        known = facts.get(lesion.picture.isic_id)
        if known is not None:
            first.setdefault(lesion.picture.lesion_id, (known, lesion.label))
    if not first:
        return FactsModel.silent()
    return fit_facts([known for known, _ in first.values()], np.array([label for _, label in first.values()]))


def fitted(seen: Seen, model: FactsModel) -> Trust:
    """What is shipped: fitted on all of `seen`; what holds with facts, on the cases that have some."""
    members, scaling = fit_mixture(seen.logits, seen.labels)
    rows = scaling.probabilities(np.tensordot(seen.logits, np.array(members), axes=(1, 0)))
    told = np.array([bool(names_known(each)) for each in seen.facts])
    alone, weight, with_facts = reading(rows, seen.labels), 0.0, reading(rows, seen.labels)
    if told.any():
        evidence = np.stack([model.evidence(each) for each in seen.facts])
        weight = fit_weight(rows[told], evidence[told], seen.labels[told])
        with_facts = reading(informed(rows, evidence, weight)[told], seen.labels[told])
    source = f"HAM10000 fold 0, {len(seen.labels)} pictures of {len(set(seen.groups))} lesions"
    return Trust(members, scaling, alone, model, weight, with_facts, COVERAGE, source)


def reading(rows: Floats, labels: Places) -> Reading:
    """The thresholds that answers `rows` (N, 7) need for what is promised."""
    points = operating_points(malignancy(rows), np.isin(labels, MALIGNANT_COLUMNS))
    return Reading(set_thresholds(rows, labels), dict(zip(SENSITIVITIES, points, strict=True)))


def dealt(groups: Sequence[str], parts: int = FOLDS) -> Places:
    """The part, 0 to `parts` - 1, of each case: all pictures of a lesion go to one."""
    names = sorted(set(groups))
    order = np.random.default_rng(SEED).permutation(len(names))
    part = {names[place]: int(number % parts) for number, place in enumerate(order)}
    return np.array([part[group] for group in groups])
