"""The gate's second network fitted within minutes: ImageNet's body as it is, and a small head upon it.

Pictures are drawn and passed through the body once; their pooled features are kept, and the head learns from
them alone. Folds of the photographs' patients say how well it does on patients it has not seen.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from cds_bundles.classifier_network import Start
from cds_bundles.index import FOLDS, HELD_OUT_FOLD
from cds_bundles.metric_ranking import roc_auc
from cds_bundles.picture_files import read_rgb
from cds_bundles.quality_scene import KINDS, SHORT_SIDE, SceneNetwork, scene_input, to_scene_batch
from cds_bundles.quality_scene_data import ASPECTS, MULTIPLE, SceneSources
from cds_bundles.weights import save_half

KEEP_EVERY = 10
"""Batches after which the features are written down, for a run to go on from."""
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1.0
ROWS = 64
"""Features in a step of the head's training."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What the body says of drawn pictures: values (N, D), places in KINDS and photographs' folds (N,)."""

    values: Floats
    labels: NDArray[np.intp]
    folds: NDArray[np.intp]

    def of(self, chosen: NDArray[np.bool_]) -> Features:
        """Those that are `chosen` (N,)."""
        return Features(self.values[chosen], self.labels[chosen], self.folds[chosen])


@dataclass(slots=True)
class SceneFit:
    """`run()` draws, or goes on drawing, into `run_directory`, then fits the head and exports `weights`."""

    data_root: str
    run_directory: str
    weights: str
    batches: int = 120
    batch_size: int = 24
    plain_lesions: int = 1000
    """Real lesions shown as they are; so is every photograph. Without them strangers' whole pictures are told
    apart less well than pictures that were drawn from them."""
    passes: int = 40
    seed: int = 7
    threads: int = 1
    start: Start = "timm"
    fold: int = HELD_OUT_FOLD
    """The one that is held out."""
    budget_minutes: float = 0.0
    """No further batch is drawn after these; 0 for no limit."""

    def run(self) -> dict[str, float]:
        """The figures on patients left out, printed and kept beside the features."""
        torch.set_num_threads(self.threads)
        cv2.setNumThreads(1)
        torch.manual_seed(self.seed)
        network = SceneNetwork(self.start).eval().to(memory_format=torch.channels_last)
        features = _joined([self._features(network), self._plain(network)])
        figures = left_out(network, features, self.passes)
        fit_head(network, features, self.passes)
        photographs = np.count_nonzero(features.labels == KINDS.index("photograph"))
        facts = {
            "pictures": str(len(features.labels)),
            "photographs": str(photographs),
            "seed": str(self.seed),
            "start": self.start,
            "held_out_fold": str(self.fold),
        }
        save_half(Path(self.weights), network.state_dict(), facts)
        (Path(self.run_directory) / "scene_left_out.json").write_text(json.dumps(figures, indent=2) + "\n")
        print(json.dumps(figures, indent=2))
        return figures

    def _plain(self, network: SceneNetwork) -> Features:
        """Photographs and lesions as they are, once each."""
        rng = np.random.default_rng(self.seed)
        sources = SceneSources.of(Path(self.data_root), self.fold)
        photographs = [(each, KINDS.index("photograph"), each.fold) for each in sources.photographs]
        folds = training_folds(self.fold)
        lesions = [
            (sources.dermoscopy.lesion(rng), KINDS.index("lesion"), int(rng.choice(folds)))
            for _ in range(self.plain_lesions)
        ]
        shown = tqdm(photographs + lesions, file=sys.stderr, mininterval=10)
        values = [network_features(network, scene_input(read_rgb(each.path))) for each, _, _ in shown]
        return Features(
            np.concatenate(values),
            np.array([label for _, label, _ in photographs + lesions]),
            np.array([fold for _, _, fold in photographs + lesions]),
        )

    def _features(self, network: SceneNetwork) -> Features:
        kept = Path(self.run_directory) / f"scene_features_{self.seed}_{self.batches}.npz"
        parts = [_load(kept)] if kept.is_file() else []
        first = sum(len(part.labels) for part in parts) // self.batch_size
        with tqdm(total=self.batches, initial=first, file=sys.stderr, mininterval=10) as progress:
            for step, part in self._looked_at(network, first):
                parts.append(part)
                progress.update()
                if (step + 1) % KEEP_EVERY == 0 or step + 1 == self.batches:
                    parts = [_joined(parts)]
                    _save(kept, parts[0])
        return parts[0]

    def _looked_at(self, network: SceneNetwork, first: int) -> Iterator[tuple[int, Features]]:
        """Batch number `first` and those behind it; each is the same whenever it is made."""
        if first == self.batches:
            return
        sources = SceneSources.of(Path(self.data_root), self.fold)
        by_fold = sources_by_fold(sources, self.fold)
        end = time.monotonic() + 60 * self.budget_minutes
        for step in range(first, self.batches):
            if self.budget_minutes and step > first and time.monotonic() > end:
                return
            rng = np.random.default_rng((self.seed, step))
            aspect = ASPECTS[int(rng.integers(len(ASPECTS)))]
            height, width = (MULTIPLE * round(SHORT_SIDE * side / MULTIPLE) for side in aspect)
            labels: NDArray[np.intp] = rng.choice(len(KINDS), self.batch_size, p=sources.shares)
            folds: NDArray[np.intp] = rng.choice(sorted(by_fold), self.batch_size)
            pictures = [
                by_fold[int(fold)].draw(rng, KINDS[label], height, width)
                for label, fold in zip(labels, folds, strict=True)
            ]
            yield step, Features(network_features(network, to_scene_batch(pictures)), labels, folds)


def training_folds(held_out: int) -> list[int]:
    """All but the one that is held out."""
    return [fold for fold in range(FOLDS) if fold != held_out]


def sources_by_fold(sources: SceneSources, held_out: int) -> dict[int, SceneSources]:
    """`sources` with the photographs of each training fold of their patients."""
    return {
        fold: replace(sources, photographs=tuple(p for p in sources.photographs if p.fold == fold))
        for fold in training_folds(held_out)
    }


@torch.inference_mode()
def network_features(network: SceneNetwork, batch: torch.Tensor) -> Floats:
    """(N, D) pooled features of (N, 3, H, W) in -1..1."""
    return network.pooled(batch).numpy().astype(np.float32)


def left_out(network: SceneNetwork, features: Features, passes: int) -> dict[str, float]:
    """AUC of each other kind against lesions, on draws of folds that the head did not learn from."""
    logits = np.zeros((len(features.labels), len(KINDS)), np.float32)
    for fold in np.unique(features.folds):
        out = features.folds == fold
        head = fit_head(network, features.of(~out), passes)
        with torch.inference_mode():
            logits[out] = head(torch.from_numpy(features.values[out])).numpy()
    figures = {"pictures": float(len(logits))}
    for column, name in enumerate(KINDS[1:], start=1):
        both = (features.labels == 0) | (features.labels == column)
        rank = logits[both, column] - logits[both, 0]
        auc = roc_auc(features.labels[both] == column, rank.astype(np.float64))
        figures[f"auc_{name}"] = round(auc.of_all(), 4)
    return figures


def fit_head(network: SceneNetwork, features: Features, passes: int) -> nn.Module:
    """A head learned from scratch, in evaluation mode; it is `network`'s from now on."""
    values, labels = torch.from_numpy(features.values), torch.from_numpy(features.labels)
    generator = torch.Generator().manual_seed(len(labels))
    head = _fresh_head(network, generator)
    middle, spread = values.mean(0), values.std(0) + 1e-3
    steps = passes * max(1, len(labels) // ROWS)
    optimizer = torch.optim.AdamW(head.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule: Any = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    head.train()
    for _ in range(steps):
        rows = torch.randint(len(labels), (ROWS,), generator=generator)
        loss = nn.functional.cross_entropy(head((values[rows] - middle) / spread), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    _take_in(head, middle, spread)
    return head.eval()


def _fresh_head(network: SceneNetwork, generator: torch.Generator) -> nn.Sequential:
    for layer in network.head:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
    return network.head


@torch.no_grad()
def _take_in(head: nn.Sequential, middle: torch.Tensor, spread: torch.Tensor) -> None:
    """Makes the first layer standardise its input itself."""
    first = head[0]
    assert isinstance(first, nn.Linear)
    first.weight.div_(spread)
    first.bias.sub_(first.weight @ middle)


def _joined(parts: list[Features]) -> Features:
    values, labels, folds = (
        np.concatenate([getattr(part, name) for part in parts]) for name in Features.__slots__
    )
    return Features(values, labels, folds)


def _save(path: Path, features: Features) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".new.npz")
    np.savez(scratch, values=features.values, labels=features.labels, folds=features.folds)
    scratch.replace(path)


def _load(path: Path) -> Features:
    with np.load(path) as kept:
        return Features(kept["values"], kept["labels"], kept["folds"])
