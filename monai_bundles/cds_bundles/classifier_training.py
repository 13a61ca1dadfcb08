"""Training of the lesion classifier: class-balanced draws, growing crops, averaged weights, resumable."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.utils.misc import set_determinism
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from cds_bundles.classes import CLASSES
from cds_bundles.classification import logits_and_features
from cds_bundles.classifier_data import (
    Lesion,
    draw_probabilities,
    every_class,
    read_rgb,
    training_and_held_out,
)
from cds_bundles.classifier_network import (
    ARCHITECTURE,
    Start,
    freeze_first_stages,
    lesion_network,
    to_network_input,
)
from cds_bundles.lesion_augmentation import training_crop
from cds_bundles.lesion_crops import cut_square, square_around
from cds_bundles.training_state import TrainingState, cosine_rate
from cds_bundles.weights import load_half, save_half


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long to train, on crops of which size, and how fast."""

    stages: tuple[tuple[int, int], ...]
    """(crop side in pixels, steps) in order."""
    batch: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.03
    warm_up: float = 0.06
    """Share of all steps in which the rate rises."""
    label_smoothing: float = 0.1
    ema_decay: float = 0.998
    balance_power: float = 0.75
    task1_weight: float = 0.5

    @property
    def steps(self) -> int:
        """All steps of all stages."""
        return sum(count for _, count in self.stages)

    def size_at(self, step: int) -> int:
        """Side of the crops, in pixels, at `step`."""
        end = 0
        for size, count in self.stages:
            end += count
            if step < end:
                return size
        return self.stages[-1][0]

    def rate_at(self, step: int) -> float:
        """Learning rate: linear warm-up, then half a cosine down to a hundredth."""
        rising = max(1, round(self.steps * self.warm_up))
        return cosine_rate(self.learning_rate, step, self.steps, rising)


def schedule(stages: Sequence[Sequence[int]], **changes: float) -> Schedule:
    """A `Schedule` from lists, as a JSON configuration holds them."""
    pairs = tuple((int(size), int(steps)) for size, steps in stages)
    return Schedule(stages=pairs, **changes)  # type: ignore[arg-type]


class ClassifierTraining:
    """One resumable run; `run()` trains to the schedule's end and exports the averaged weights."""

    def __init__(
        self,
        data_root: str,
        work_directory: str,
        weights: str,
        plan: Schedule,
        start: Start = "timm",
        seed: int = 20,
        threads: int = 1,
        checkpoint_seconds: float = 150.0,
        check_every: int = 250,
        context: float = 1.5,
        go_on_from: str = "",
        architecture: str = ARCHITECTURE,
        compiled: bool = False,
    ) -> None:
        """`work_directory` holds the run's state, `weights` the exported file, `context` that of use.

        `go_on_from`: shipped weights to train further instead of those that `start` names. `compiled`:
        through torch.compile, which is about a fifth faster on a CPU and needs a C++ compiler.
        """
        torch.set_num_threads(threads)
        set_determinism(seed)
        self.plan, self.seed, self.weights, self.context = plan, seed, Path(weights), context
        self.start, self.check_every, self.checkpoint_seconds = start, check_every, checkpoint_seconds
        self.work = Path(work_directory)
        self.work.mkdir(parents=True, exist_ok=True)
        network = lesion_network(start, drop_rate=0.2, drop_path_rate=0.1, architecture=architecture)
        if go_on_from:
            load_half(Path(go_on_from), network)
        network.to(memory_format=torch.channels_last)
        self.frozen = freeze_first_stages(network)
        trained = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=plan.learning_rate, weight_decay=plan.weight_decay)
        self.state = TrainingState.of(network, optimizer)
        self.architecture = architecture
        self.forward = torch.compile(network) if compiled else network
        self.loss = nn.CrossEntropyLoss(label_smoothing=plan.label_smoothing)
        self.training, held_out = training_and_held_out(Path(data_root))
        self.draws = draw_probabilities(self.training, plan.balance_power, plan.task1_weight)
        self.checked = every_class(held_out, per_class=30, seed=seed)

    @property
    def checkpoint(self) -> Path:
        """Where the run's state lies; written anew every `checkpoint_seconds`."""
        return self.work / "checkpoint.pt"

    def run(self) -> None:
        """Trains from the last checkpoint, or from the start, to the end; then exports."""
        self.state.resume(self.checkpoint)
        saved_at = time.monotonic()
        with tqdm(
            total=self.plan.steps, initial=self.state.step, file=sys.stderr, mininterval=10
        ) as progress:
            while self.state.step < self.plan.steps:
                size = self.plan.size_at(self.state.step)
                progress.set_postfix(loss=f"{self._train_step():.3f}", px=size, refresh=False)
                progress.update()
                if self.state.step % self.check_every == 0:
                    self._check()
                if time.monotonic() - saved_at > self.checkpoint_seconds:
                    self.state.save(self.checkpoint)
                    saved_at = time.monotonic()
        self.state.save(self.checkpoint)
        self.export()

    def export(self) -> None:
        """Writes the averaged weights, in half precision, to where the bundle ships them."""
        facts = {"architecture": self.architecture, "start": self.start, "steps": str(self.state.step)}
        save_half(self.weights, self.state.average.state_dict(), facts)

    def _train_step(self) -> float:
        self.state.network.train()
        for module in self.frozen:
            module.eval()
        rng = np.random.default_rng((self.seed, self.state.step))
        torch.manual_seed(self.seed + self.state.step)
        crops, labels = self._batch(rng)
        for group in self.state.optimizer.param_groups:
            group["lr"] = self.plan.rate_at(self.state.step)
        self.state.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.forward(crops), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.state.network.parameters(), 5.0)
        self.state.optimizer.step()
        self.state.end_step(self.plan.ema_decay)
        return float(loss.detach())

    def _batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        size = self.plan.size_at(self.state.step)
        drawn = [self.training[i] for i in rng.choice(len(self.training), self.plan.batch, p=self.draws)]
        crops = [training_crop(read_rgb(item.picture.path), item.bbox, size, rng) for item in drawn]
        labels = torch.tensor([item.label for item in drawn])
        return to_network_input(np.stack(crops)), labels

    def _check(self) -> None:
        """Balanced accuracy on a small held-out sample, one view each, appended to checks.jsonl."""
        size = self.plan.size_at(self.state.step)
        rows = [self._logits(lesion, size) for lesion in self.checked]
        labels = np.array([lesion.label for lesion in self.checked])
        hits = np.argmax(np.stack(rows), axis=1) == labels
        recalls = [float(hits[labels == column].mean()) for column in range(len(CLASSES))]
        note = {"step": self.state.step, "size": size, "balanced_accuracy": round(float(np.mean(recalls)), 4)}
        with (self.work / "checks.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(note | {"recalls": [round(r, 2) for r in recalls]}) + "\n")

    def _logits(self, lesion: Lesion, size: int) -> NDArray[np.float32]:
        rgb = read_rgb(lesion.picture.path)
        square = square_around(lesion.bbox, rgb.shape[1], rgb.shape[0], self.context)
        crops = cut_square(rgb, square, size)[None]
        logits, _ = logits_and_features(self.state.average, crops)
        row: NDArray[np.float32] = logits[0]
        return row
