"""Fits what is said with a classifier's answers, on lesions it was not trained on, and measures it honestly.

Held-out lesions are few, so each figure is cross-fitted: the lesions are dealt out to `FOLDS` parts, and each
part is judged by what was fitted on the others. What is shipped is then fitted on all of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from cds_bundles.calibration import (
    SENSITIVITIES,
    Floats,
    Places,
    VectorScaling,
    expected_calibration_error,
    fit_scaling,
    malignancy,
    operating_points,
    prediction_sets,
    set_thresholds,
)
from cds_bundles.classes import CLASSES, MALIGNANT_COLUMNS
from cds_bundles.classification import LesionLook
from cds_bundles.classifier_data import Lesion, read_rgb, training_and_held_out
from cds_bundles.familiarity import Familiarity
from cds_bundles.metrics import balanced_accuracy, bootstrap, roc_auc
from cds_bundles.trust import Trust

FOLDS = 5
SEED = 7
SPLIT = "HAM10000 fold 0, grouped by lesion, cross-fitted in 5 parts"


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Raw answers: logits (N, 7), features (N, D), the true columns (N,), lesions by name."""

    logits: NDArray[np.float32]
    features: NDArray[np.float32]
    labels: Places
    groups: tuple[str, ...]
    confirmed: NDArray[np.bool_]
    """True where histology confirmed the diagnosis."""

    def of(self, chosen: NDArray[np.bool_]) -> Seen:
        """The cases that are `chosen`."""
        groups = tuple(group for group, wanted in zip(self.groups, chosen, strict=True) if wanted)
        return Seen(
            self.logits[chosen], self.features[chosen], self.labels[chosen], groups, self.confirmed[chosen]
        )


def see(look: LesionLook, lesions: Sequence[Lesion]) -> Seen:
    """Raw answers for `lesions`, each with the box of its reference mask."""
    rows = [look(read_rgb(each.picture.path), [each.bbox]) for each in tqdm(lesions, file=sys.stderr)]
    return Seen(
        np.concatenate([logits for logits, _ in rows]),
        np.concatenate([features for _, features in rows]),
        np.array([lesion.label for lesion in lesions]),
        tuple(lesion.picture.lesion_id for lesion in lesions),
        np.array([lesion.picture.histology for lesion in lesions]),
    )


@dataclass(slots=True)
class ClassifierTrust:
    """`run()` writes the files `trust` and `familiarity` that go beside the weights, and a `report`."""

    data_root: str
    look: LesionLook
    trust: str
    familiarity: str
    report: str
    training_lesions: int = 3000
    threads: int = 1

    def run(self) -> dict[str, Any]:
        """Looks at the held-out lesions and a sample of the training ones, fits, measures, writes."""
        torch.set_num_threads(self.threads)
        training, held_out = training_and_held_out(Path(self.data_root))
        sample = np.random.default_rng(SEED).permutation(len(training))[: self.training_lesions]
        known = see(self.look, [training[place] for place in sample])
        fresh = see(self.look, held_out)
        Familiarity.of(known.features, fresh.features).save(Path(self.familiarity))
        fitted(fresh).save(Path(self.trust))
        figures = measured(fresh)
        Path(self.report).parent.mkdir(parents=True, exist_ok=True)
        Path(self.report).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        np.savez(
            Path(self.report).with_suffix(".npz"),
            logits=fresh.logits,
            labels=fresh.labels,
            features=fresh.features,
        )
        print(json.dumps(figures, indent=2))
        return figures


def fitted(seen: Seen) -> Trust:
    """What is shipped: fitted on all of `seen`."""
    scaling = fit_scaling(seen.logits, seen.labels)
    rows = scaling.probabilities(seen.logits)
    points = operating_points(malignancy(rows), np.isin(seen.labels, MALIGNANT_COLUMNS))
    return Trust(
        scaling,
        set_thresholds(rows, seen.labels),
        dict(zip(SENSITIVITIES, points, strict=True)),
        fitted_on=f"HAM10000 fold 0, {len(seen.labels)} pictures of {len(set(seen.groups))} lesions",
    )


def dealt(groups: Sequence[str], parts: int = FOLDS) -> Places:
    """The part, 0 to `parts` - 1, of each case: all pictures of a lesion go to one."""
    names = sorted(set(groups))
    order = np.random.default_rng(SEED).permutation(len(names))
    part = {names[place]: int(number % parts) for number, place in enumerate(order)}
    return np.array([part[group] for group in groups])


def measured(seen: Seen) -> dict[str, Any]:
    """Cross-fitted figures with 95 % intervals over lesions."""
    parts = dealt(seen.groups)
    rows = np.zeros(seen.logits.shape, np.float64)
    sets = np.zeros(seen.logits.shape, np.bool_)
    flagged = {wanted: np.zeros(len(seen.labels), np.bool_) for wanted in SENSITIVITIES}
    for part in range(FOLDS):
        inside, outside = parts == part, parts != part
        scaling: VectorScaling = fit_scaling(seen.logits[outside], seen.labels[outside])
        fit_rows = scaling.probabilities(seen.logits[outside])
        rows[inside] = scaling.probabilities(seen.logits[inside])
        sets[inside] = prediction_sets(rows[inside], set_thresholds(fit_rows, seen.labels[outside]))
        ill = np.isin(seen.labels[outside], MALIGNANT_COLUMNS)
        for wanted, point in zip(SENSITIVITIES, operating_points(malignancy(fit_rows), ill), strict=True):
            flagged[wanted][inside] = malignancy(rows[inside]) >= point.threshold
    return {
        "split": SPLIT,
        "lesions": len(set(seen.groups)),
        "all_pictures": _class_figures(seen, rows),
        "histology_confirmed": _class_figures(seen.of(seen.confirmed), rows[seen.confirmed]),
        "prediction_sets": _set_figures(seen, sets),
        "operating_points": {f"{wanted:.2f}": _flag_figures(seen, hits) for wanted, hits in flagged.items()},
    }


def _class_figures(seen: Seen, rows: Floats) -> dict[str, Any]:
    labels, predicted = seen.labels, rows.argmax(axis=1)
    ill, scores = np.isin(labels, MALIGNANT_COLUMNS), malignancy(rows)
    plain = VectorScaling((1.0,) * len(CLASSES), (0.0,) * len(CLASSES)).probabilities(seen.logits)
    measures = {
        "balanced_accuracy": lambda p: balanced_accuracy(labels[p], predicted[p], len(CLASSES)),
        "accuracy": lambda p: float((labels[p] == predicted[p]).mean()),
        "malignancy_auc": lambda p: roc_auc(ill[p], scores[p]),
        "ece": lambda p: expected_calibration_error(rows[p], labels[p]),
        "ece_uncalibrated": lambda p: expected_calibration_error(plain[p], labels[p]),
    }
    figures: dict[str, Any] = {
        name: bootstrap(measure, seen.groups).rounded() for name, measure in measures.items()
    }
    figures["sensitivity"] = {
        name: _share(predicted == column, seen, labels == column) for column, name in enumerate(CLASSES)
    }
    return figures


def _set_figures(seen: Seen, sets: NDArray[np.bool_]) -> dict[str, Any]:
    covered = sets[np.arange(len(sets)), seen.labels]
    every = np.ones(len(sets), np.bool_)
    sizes = sets.sum(axis=1)
    return {
        "coverage": _share(covered, seen, every),
        "coverage_by_class": {
            name: _share(covered, seen, seen.labels == column) for column, name in enumerate(CLASSES)
        },
        "mean_set_size": bootstrap(lambda p: float(sizes[p].mean()), seen.groups).rounded(),
    }


def _flag_figures(seen: Seen, flagged: NDArray[np.bool_]) -> dict[str, Any]:
    ill = np.isin(seen.labels, MALIGNANT_COLUMNS)
    return {"sensitivity": _share(flagged, seen, ill), "specificity": _share(~flagged, seen, ~ill)}


def _share(hits: NDArray[np.bool_], seen: Seen, chosen: NDArray[np.bool_]) -> dict[str, float | int]:
    values = hits[chosen]
    groups = [group for group, wanted in zip(seen.groups, chosen, strict=True) if wanted]
    return bootstrap(lambda p: float(values[p].mean()), groups).rounded()
