"""The same comparison where training is too dear: only a last layer, on embeddings of a frozen network.

The network knows ImageNet and no lesion, so one set of embeddings serves every fold. Seconds a variant, hence
all folds for all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from cds_bundles.classes import CLASSES
from cds_bundles.classifier_data import Lesion, class_counts, draw_probabilities, labelled_lesions
from cds_bundles.classifier_losses import class_loss
from cds_bundles.classifier_network import ARCHITECTURE, Start, lesion_network
from cds_bundles.classifier_training import Recipe, answers, fingerprint
from cds_bundles.comparison_figures import (
    Answers,
    best_of,
    configuration,
    figures,
    of_folds,
    together,
    write_report,
)
from cds_bundles.imbalance_comparison import PLAIN, Variant
from cds_bundles.index import reported, split, split_index
from cds_bundles.picture_files import PictureFiles
from cds_bundles.smote_head import filled_up
from cds_bundles.training_loop import Plan, cosine_rate, prepare_torch

Floats = NDArray[np.float32]
Places = NDArray[np.intp]
Layer = torch.nn.Linear

WEIGHT_DECAY = 0.03
SMOTE = "SMOTE on embeddings"
ADJUSTED = "plain, logits adjusted afterwards"


class EmbeddingComparison:
    """`run()` embeds what is not embedded yet, trains last layers for every fold, and writes `report`."""

    def __init__(
        self,
        data_root: str,
        work_directory: str,
        report: str,
        variants: Sequence[Mapping[str, Any]],
        how: Recipe,
        plan: Plan,
        folds: Sequence[int] = (0, 1, 2, 3, 4),
        start: Start = "package",
        rounds: int = 500,
    ) -> None:
        """`plan`: steps and rate of a last layer; `how`: batch, smoothing, and the crop of the embeddings.

        `rounds`: how often lesions are drawn with replacement for the intervals.
        """
        self.rounds = rounds
        self.data_root, self.work, self.report = Path(data_root), Path(work_directory), Path(report)
        self.variants = [Variant(**each) for each in variants]
        self.how, self.plan, self.folds, self.start = how, plan, tuple(folds), start

    def run(self) -> dict[str, Any]:
        """Everything; returns the report."""
        prepare_torch(self.plan)
        lesions = self._lesions()
        features = self._embeddings(lesions)
        runs: dict[str, list[Answers]] = {}
        for fold in tqdm(self.folds, desc="folds", file=sys.stderr):
            for run in self._fold(lesions, features, fold):
                runs.setdefault(run.name, []).append(run)
                tqdm.write(f"fold {fold}, {run.name}: balanced accuracy {run.score():.4f}", sys.stderr)
        plain = together(runs[PLAIN])
        compared = {name: self._figures(of_way, plain) for name, of_way in runs.items()}
        folds = of_folds(runs[best_of(compared, runs)], self.rounds)
        document = {"configuration": self._configuration(lesions), "comparison": compared, "folds": folds}
        write_report(self.report, document)
        return document

    def _figures(self, of_way: Sequence[Answers], plain: Answers) -> dict[str, Any]:
        base = None if of_way[0].name == PLAIN else plain
        whole = figures(together(of_way), base, self.rounds)
        return whole | {"balanced_accuracy_of_folds": {str(run.fold): run.score() for run in of_way}}

    def _configuration(self, lesions: Sequence[Lesion]) -> dict[str, Any]:
        network = f"{ARCHITECTURE}, frozen as ImageNet left it; a last layer is trained"
        counts = dict(zip(CLASSES, map(int, class_counts(lesions)), strict=True))
        common = configuration(network, self.start, self.how, self.plan)
        return common | {"rounds": self.rounds, "pictures": counts}

    def _lesions(self) -> tuple[Lesion, ...]:
        """Those that a fold holds out: every picture that figures rest on."""
        wanted = [p for fold in self.folds for p in reported(split_index(self.data_root, fold)[1])]
        return labelled_lesions([p for p in wanted if self.how.source_weights.get(p.source, 1.0) > 0])

    def _embeddings(self, lesions: Sequence[Lesion]) -> Floats:
        kept = self.work / f"{self.start}-{self.how.size_at(1.0)}px-{fingerprint(lesions)}.npy"
        if not kept.is_file():
            network = lesion_network(self.start).eval().to(memory_format=torch.channels_last)
            rows = []
            for first in tqdm(range(0, len(lesions), 256), desc="embedding", file=sys.stderr):
                part = lesions[first : first + 256]
                rows.append(
                    answers(network, part, PictureFiles(), self.how.size_at(1.0), self.how.context)[1]
                )
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, np.concatenate(rows))
        features: Floats = np.load(kept)
        return features

    def _fold(self, lesions: tuple[Lesion, ...], features: Floats, fold: int) -> list[Answers]:
        """The answers of every variant for the pictures of `fold`, trained on those of the other folds."""
        training, held_out = split((lesion.picture for lesion in lesions), fold)
        row_of = {lesion.picture.path: row for row, lesion in enumerate(lesions)}
        ours = np.array([row_of[picture.path] for picture in training])
        theirs = np.array([row_of[picture.path] for picture in held_out])
        mean, sd = features[ours].mean(axis=0), features[ours].std(axis=0) + 1e-6
        known, unknown = (features[ours] - mean) / sd, (features[theirs] - mean) / sd
        own, other = tuple(lesions[row] for row in ours), tuple(lesions[row] for row in theirs)
        labels = np.array([lesion.label for lesion in own])

        def answer(name: str, layer: Layer) -> Answers:
            with torch.inference_mode():
                logits = layer(torch.from_numpy(unknown)).numpy()
            return Answers(name, fold, logits, other, {})

        found = [answer(v.name, self._layer(v, known, own)) for v in self.variants]
        plain = next(run for run in found if run.name == PLAIN)
        shares = np.maximum(class_counts(own), 1) / len(own)
        found.append(plain.changed(ADJUSTED, plain.logits - np.log(shares)))
        made, classes = filled_up(known, labels, self.plan.seed)
        drawn = np.full(len(made), 1 / len(made))
        loss = class_loss("cross_entropy", np.bincount(classes), self.how.label_smoothing)
        return [*found, answer(SMOTE, self._trained(made, classes, drawn, loss))]

    def _layer(self, variant: Variant, known: Floats, own: tuple[Lesion, ...]) -> Layer:
        draws = draw_probabilities(own, variant.balance_power, {})
        loss = class_loss(variant.loss, class_counts(own), self.how.label_smoothing)
        return self._trained(known, np.array([lesion.label for lesion in own]), draws, loss)

    def _trained(
        self,
        rows: Floats,
        labels: Places,
        draws: NDArray[np.float64],
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> Layer:
        """A last layer after the plan's steps on batches of `rows`, drawn as `draws` says."""
        rng = np.random.default_rng(self.plan.seed)
        layer = Layer(rows.shape[1], len(CLASSES))
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.0, weight_decay=WEIGHT_DECAY)
        lot = rng.choice(len(rows), (self.plan.steps, self.how.batch), p=draws)
        for step, places in enumerate(lot):
            for group in optimizer.param_groups:
                done = step / self.plan.steps
                group["lr"] = cosine_rate(self.plan.learning_rate, done, self.plan.warm_up)
            cost = loss(layer(torch.from_numpy(rows[places])), torch.from_numpy(labels[places]))
            optimizer.zero_grad(set_to_none=True)
            cost.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return layer
