"""Figures of networks that answered the same held-out lesions: each with its interval, and the gain."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cds_bundles.classes import CLASSES, MALIGNANT_COLUMNS
from cds_bundles.classifier_data import Lesion
from cds_bundles.classifier_network import Start
from cds_bundles.classifier_training import Recipe
from cds_bundles.metric_calibration import Confidences
from cds_bundles.metric_ranking import roc_auc, specificity_at_sensitivity
from cds_bundles.metric_resampling import ROUNDS, Bools, Floats, Measure, Places, estimates
from cds_bundles.metric_shares import balanced_accuracy, macro_f1, share
from cds_bundles.training_loop import Plan

SENSITIVITY = 0.95
SPECIFICITY = 0.90
MELANOMA = CLASSES.index("mel")


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What one network says of the held-out `lesions` of `fold`: logits (N, 7)."""

    name: str
    fold: int
    logits: NDArray[np.float32]
    lesions: tuple[Lesion, ...]
    facts: Mapping[str, str]
    split: str = ""
    """How the lesions came to be held out; by default the fold's number says it."""

    def changed(self, name: str, logits: NDArray[np.floating]) -> Answers:
        """The same lesions with other logits."""
        return Answers(name, self.fold, np.asarray(logits, np.float32), self.lesions, self.facts, self.split)

    def score(self) -> float:
        """Balanced accuracy, to four decimals."""
        measure = balanced_accuracy(self.labels, self.logits.argmax(axis=1), len(CLASSES))
        return round(measure.of_all(), 4)

    @property
    def labels(self) -> Places:
        """(N,): columns of CLASSES."""
        return np.array([lesion.label for lesion in self.lesions])

    @property
    def lesion_ids(self) -> list[str]:
        """(N,): one for each picture."""
        return [lesion.picture.lesion_id for lesion in self.lesions]


def together(runs: Sequence[Answers]) -> Answers:
    """The answers of several folds as one."""
    return Answers(
        runs[0].name,
        -1,
        np.concatenate([run.logits for run in runs]),
        tuple(lesion for run in runs for lesion in run.lesions),
        runs[0].facts,
        f"folds {', '.join(str(run.fold) for run in runs)}, each held out once, grouped by lesion",
    )


def figures(run: Answers, plain: Answers | None = None, rounds: int = ROUNDS) -> dict[str, Any]:
    """The figures of `run`, and what it gains in balanced accuracy over `plain` on the same lesions.

    `rounds`: how often lesions are drawn with replacement for the intervals.
    """
    measures = measures_of(run.logits, run.labels)
    if plain is not None:
        theirs = measures_of(plain.logits, plain.labels)["balanced_accuracy"]
        measures["gain_in_balanced_accuracy"] = _difference(measures["balanced_accuracy"], theirs)
    split = run.split or f"fold {run.fold}, grouped by lesion"
    found = estimates(measures, run.lesion_ids, split, rounds)
    facts = {name: float(run.facts[name]) for name in ("steps", "minutes") if name in run.facts}
    return {name: each.as_json() for name, each in found.items()} | facts


def of_folds(runs: Sequence[Answers], rounds: int = ROUNDS) -> dict[str, Any]:
    """The figures of one way on each fold, their spread, and those of all folds as one."""
    each = {str(run.fold): figures(run, rounds=rounds) for run in runs}
    whole = figures(together(runs), rounds=rounds)
    return {"variant": runs[0].name, "each": each, "mean_of_folds": spread(each), "together": whole}


def best_of(compared: Mapping[str, Mapping[str, Any]], among: Iterable[str]) -> str:
    """The name of the highest balanced accuracy."""
    return max(among, key=lambda name: float(compared[name]["balanced_accuracy"]["value"]))


def configuration(network: str, start: Start, how: Recipe, plan: Plan) -> dict[str, Any]:
    """What every way of a comparison has in common."""
    return {
        "network": network,
        "start": start,
        "crop_px": how.size_at(1.0),
        "steps": plan.steps,
        "batch": how.batch,
        "learning_rate": plan.learning_rate,
        "seed": plan.seed,
        "label_smoothing": how.label_smoothing,
    }


def write_report(path: Path, document: Mapping[str, Any]) -> None:
    """Writes the report as `comparison_report` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def spread(each: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of the folds' figures."""
    names = [name for name, figure in next(iter(each.values())).items() if isinstance(figure, Mapping)]
    values = {name: [float(of_fold[name]["value"]) for of_fold in each.values()] for name in names}
    return {
        name: {"mean": round(float(np.mean(v)), 4), "sd": round(float(np.std(v, ddof=1)), 4)}
        for name, v in values.items()
        if len(v) > 1
    }


def measures_of(logits: NDArray[np.floating], labels: Places) -> dict[str, Measure]:
    """What is measured of `logits` (N, 7) against `labels` (N,)."""
    probabilities = softmax(logits)
    answered = probabilities.argmax(axis=1)
    malignant: Bools = np.isin(labels, MALIGNANT_COLUMNS)
    risk = probabilities[:, MALIGNANT_COLUMNS].sum(axis=1)
    everything = np.ones(len(labels), np.bool_)
    confidences = Confidences(probabilities.max(axis=1), answered == labels, everything)
    return {
        "balanced_accuracy": balanced_accuracy(labels, answered, len(CLASSES)),
        "accuracy": share(answered == labels),
        "macro_f1": macro_f1(labels, answered, len(CLASSES)),
        "malignancy_auc": roc_auc(malignant, risk),
        "specificity_at_95_sensitivity": specificity_at_sensitivity(malignant, risk, SENSITIVITY),
        "sensitivity_at_90_specificity": specificity_at_sensitivity(~malignant, -risk, SPECIFICITY),
        "melanoma_sensitivity": share(answered == labels, labels == MELANOMA),
        "ece": confidences.error(confidences.equal_width()),
    }


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Rows (N, C) of probabilities."""
    powers = np.exp(np.asarray(logits, np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def _difference(ours: Measure, theirs: Measure) -> Measure:
    def compute(weights: Floats) -> Floats:
        return ours.compute(weights) - theirs.compute(weights)

    return Measure(compute, ours.amounts)
