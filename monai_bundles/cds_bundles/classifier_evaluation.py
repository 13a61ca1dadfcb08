"""Evaluation of the lesion classifier on held-out lesions, with the boxes of masks or of the segmenter."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from cds_bundles import metric_ranking, metric_shares
from cds_bundles.classes import CLASSES, MALIGNANT_COLUMNS
from cds_bundles.classification import LesionClassifier
from cds_bundles.classifier_data import Lesion, every_class, read_rgb, training_and_held_out
from cds_bundles.lesion_crops import Box, Rgb
from cds_bundles.metric_resampling import Places, estimates
from cds_bundles.predictors import load_predictor

Probabilities = NDArray[np.float32]
SEED = 0
SPLIT = "HAM10000 fold 0, grouped by lesion"


class ClassifierEvaluation:
    """Runs the product's predictor over the held-out lesions and reports figures with 95 % intervals."""

    def __init__(
        self,
        data_root: str,
        predictor: LesionClassifier,
        output: str,
        segmentation_bundle: str = "",
        per_class: int = 0,
        threads: int = 1,
    ) -> None:
        """`segmentation_bundle`: folder of the bundle whose first box is classified, as the product does.

        When it is empty, the box of the reference mask is classified. `per_class`: evaluate at most so many
        pictures of each class, drawn at random; 0 for all. Accuracy then is that of the changed mix.
        """
        torch.set_num_threads(threads)
        held_out = training_and_held_out(Path(data_root))[1]
        self.lesions = every_class(held_out, per_class, SEED) if per_class else held_out
        self.per_class = per_class
        self.predictor, self.output = predictor, Path(output)
        self.segmenter = load_predictor(Path(segmentation_bundle)) if segmentation_bundle else None

    def run(self) -> dict[str, Any]:
        """Prints the report as JSON and writes it to `output`; returns it too."""
        rows = np.stack([self._row(lesion) for lesion in tqdm(self.lesions, file=sys.stderr)])
        boxes = "segmenter" if self.segmenter else "mask"
        document = {"boxes": boxes, "at_most_per_class": self.per_class or None} | report(self.lesions, rows)
        text = json.dumps(document, indent=2)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self.output.write_text(text + "\n", encoding="utf-8")
        np.save(self.output.with_suffix(".npy"), rows)
        print(text)
        return document

    def _row(self, lesion: Lesion) -> Probabilities:
        rgb = read_rgb(lesion.picture.path)
        box = self._box(rgb, lesion)
        if box is None:
            return np.zeros(len(CLASSES), np.float32)
        return np.array(self.predictor(rgb, [box])[0].probabilities, np.float32)

    def _box(self, rgb: Rgb, lesion: Lesion) -> Box | None:
        if self.segmenter is None:
            return lesion.bbox
        found = self.segmenter(rgb)
        return found[0].bbox if found else None


def report(lesions: Sequence[Lesion], rows: Probabilities) -> dict[str, Any]:
    """Figures of `rows` (N, 7) against the lesions' labels; a row of zeros (not found) is wrong."""
    confirmed = np.array([lesion.picture.histology for lesion in lesions])
    every = np.ones(len(lesions), bool)
    return {
        "split": SPLIT,
        "lesions": len({lesion.picture.lesion_id for lesion in lesions}),
        "not_found": int((rows.sum(axis=1) == 0).sum()),
        "all": _figures(lesions, rows, every),
        "histology_confirmed": _figures(lesions, rows, confirmed),
        "confusion": _confusion(_labels(lesions), predictions(rows)).tolist(),
    }


def predictions(rows: Probabilities) -> Places:
    """The most probable column of each row; one past the last where the row is all zeros."""
    return np.where(rows.sum(axis=1) > 0, rows.argmax(axis=1), len(CLASSES))


def _labels(lesions: Sequence[Lesion]) -> Places:
    return np.array([lesion.label for lesion in lesions])


def _figures(lesions: Sequence[Lesion], rows: Probabilities, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    labels, predicted = _labels(lesions)[chosen], predictions(rows)[chosen]
    groups = [lesion.picture.lesion_id for lesion, wanted in zip(lesions, chosen, strict=True) if wanted]
    malignancy = rows[chosen][:, MALIGNANT_COLUMNS].sum(axis=1)
    measures = {
        "balanced_accuracy": metric_shares.balanced_accuracy(labels, predicted, len(CLASSES)),
        "accuracy": metric_shares.share(labels == predicted),
        "malignancy_auc": metric_ranking.roc_auc(np.isin(labels, MALIGNANT_COLUMNS), malignancy),
    }
    by_class = {
        name: metric_shares.share(predicted == column, labels == column)
        for column, name in enumerate(CLASSES)
        if (labels == column).any()
    }
    found = {name: each.as_json() for name, each in estimates(measures, groups, SPLIT).items()}
    return found | {
        "sensitivity": {name: each.as_json() for name, each in estimates(by_class, groups, SPLIT).items()}
    }


def _confusion(labels: Places, predicted: Places) -> NDArray[np.intp]:
    table = np.zeros((len(CLASSES), len(CLASSES) + 1), np.intp)
    np.add.at(table, (labels, predicted), 1)
    return table
