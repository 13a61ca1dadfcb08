"""Ways to meet classes of very different size, compared: one small network, same pictures seen, same seed."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from cds_bundles.classifier_data import Lesion, class_counts, labelled_lesions
from cds_bundles.classifier_losses import LossName
from cds_bundles.classifier_network import ARCHITECTURE, Start, lesion_network
from cds_bundles.classifier_training import ClassifierTraining, Recipe, answers, fingerprint, training_lesions
from cds_bundles.comparison_figures import (
    Answers,
    best_of,
    configuration,
    figures,
    of_folds,
    write_report,
)
from cds_bundles.index import reported, split_index
from cds_bundles.picture_files import PictureFiles
from cds_bundles.smote_head import filled_up, repeated, retrained
from cds_bundles.training_loop import Plan
from cds_bundles.weights import load_half, weights_metadata

PLAIN = "plain"
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to train under test."""

    name: str
    loss: LossName = "cross_entropy"
    balance_power: float = 0.0

    @property
    def slug(self) -> str:
        """The name as part of a file's."""
        return re.sub(r"[^a-z0-9.]+", "-", self.name.lower())


class ImbalanceComparison:
    """`run()` trains what is not trained yet, measures all of it on held-out lesions, and writes `report`.

    Every run is resumable and kept in `work_directory`; started again, only what is missing is done.
    """

    def __init__(
        self,
        data_root: str,
        work_directory: str,
        report: str,
        variants: Sequence[Mapping[str, Any]],
        how: Recipe,
        plan: Plan,
        folds: Sequence[int] = (0, 1, 2, 3, 4),
        best: str = "",
        start: Start = "package",
        cache: str = "",
    ) -> None:
        """`folds`: the first is that of the comparison, all are for the best variant.

        `best`: its name; when it is empty, the one of the highest balanced accuracy on the first fold.
        `cache`: where decoded pictures are kept, by default in `work_directory`.
        """
        self.data_root, self.work, self.report = Path(data_root), Path(work_directory), Path(report)
        self.variants = tuple(Variant(**each) for each in variants)
        self.cache = cache or str(self.work / "decoded")
        self.how, self.plan, self.folds, self.best, self.start = how, plan, tuple(folds), best, start

    def run(self) -> dict[str, Any]:
        """Trains, measures, and writes the report after every run; returns it."""
        document = self._head() | {"comparison": self._compare(self.folds[0])}
        best = self._best(document["comparison"])
        runs: list[Answers] = []
        for fold in self.folds:
            runs.append(self._answers(best, fold))
            document["folds"] = of_folds(runs)
            write_report(self.report, document)
        return document

    def _compare(self, fold: int) -> dict[str, Any]:
        """Figures of every variant on `fold`, by name."""
        compared: dict[str, Any] = {}
        plain: Answers | None = None
        for variant in self.variants:
            run = self._answers(variant, fold)
            compared[run.name] = figures(run, plain)
            if variant.name == PLAIN:
                plain = run
                compared |= {later.name: figures(later, plain) for later in self._after_training(run)}
            write_report(self.report, self._head() | {"comparison": compared})
        return compared

    def _best(self, compared: Mapping[str, Any]) -> Variant:
        by_name = {variant.name: variant for variant in self.variants}
        return by_name[self.best or best_of(compared, by_name)]

    def _head(self) -> dict[str, Any]:
        return {"configuration": configuration(ARCHITECTURE, self.start, self.how, self.plan)}

    def _answers(self, variant: Variant, fold: int) -> Answers:
        """What the variant's network says of the held-out fold; trained first where it was not."""
        name = f"{variant.slug}-fold{fold}"
        weights, kept = self.work / f"{name}.safetensors", self.work / f"{name}.npy"
        if not kept.is_file():
            print(f"{name}: training", file=sys.stderr, flush=True)
            self._training(variant, fold, weights).run()
            logits, _ = self._look(weights, self._held_out(fold))
            np.save(kept, logits)
        return Answers(variant.name, fold, np.load(kept), self._held_out(fold), weights_metadata(weights))

    def _recipe(self, variant: Variant) -> Recipe:
        return replace(self.how, loss=variant.loss, balance_power=variant.balance_power)

    def _training(self, variant: Variant, fold: int, weights: Path) -> ClassifierTraining:
        folder = self.work / weights.stem
        return ClassifierTraining(
            str(self.data_root),
            str(folder),
            str(weights),
            self._recipe(variant),
            self.plan,
            fold,
            self.start,
            cache=self.cache,
        )

    def _held_out(self, fold: int) -> tuple[Lesion, ...]:
        return labelled_lesions(reported(split_index(self.data_root, fold)[1]))

    def _look(self, weights: Path, lesions: Sequence[Lesion]) -> tuple[Floats, Floats]:
        network = load_half(weights, lesion_network())
        return answers(network, lesions, PictureFiles(), self.how.size_at(1.0), self.how.context)

    def _after_training(self, plain: Answers) -> list[Answers]:
        """What can be done for rare classes once the plain network is there, on its first fold."""
        fold, weights = plain.fold, self.work / f"{PLAIN}-fold{plain.fold}.safetensors"
        training = training_lesions(self.data_root, fold, self.how, self.plan.seed)[0]
        shares = class_counts(training) / len(training)
        later = [plain.changed("plain, logits adjusted afterwards", plain.logits - np.log(shares))]
        features = self._embeddings(weights, training)
        held_out = self._kept_features(weights, plain.lesions, f"{PLAIN}-fold{fold}-held-out")
        head = cast(nn.Linear, load_half(weights, lesion_network()).get_submodule("classifier"))
        labels = np.array([lesion.label for lesion in training])
        for name, fill in (("SMOTE on embeddings", filled_up), ("rare embeddings repeated", repeated)):
            own = retrained(head, *fill(features, labels, self.plan.seed), self.plan.seed)
            logits = held_out @ own.weight.detach().numpy().T + own.bias.detach().numpy()
            later.append(plain.changed(name, logits))
        return later

    def _embeddings(self, weights: Path, training: Sequence[Lesion]) -> Floats:
        return self._kept_features(weights, training, f"{weights.stem}-{fingerprint(training)}")

    def _kept_features(self, weights: Path, lesions: Sequence[Lesion], name: str) -> Floats:
        kept = self.work / f"{name}-features.npy"
        if not kept.is_file():
            np.save(kept, self._look(weights, lesions)[1])
        features: Floats = np.load(kept)
        return features
