"""Training of the segmenter: seeded, resumable at any step, averaged weights, half precision at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import torch
from torch import nn
from torch.utils.data import DataLoader, SequentialSampler, Subset

from .index import HAM10000, TASK1, Picture, from_source, read_index, split
from .segmenter_data import Batch, SceneBatches, Sources, sources, without_duplicates
from .segmenter_network import LesionMaskRCNN, build_segmenter, freeze_statistics, load_imagenet, pixels_last
from .training_state import TrainingState, cosine_rate
from .weights import save_half

CHECKPOINT_SECONDS = 150.0
GRADIENT_NORM = 5.0
WARM_UP_STEPS = 150
AVERAGING = 0.998
"""Share of the averaged weights that one step keeps."""


def split_sources(data_root: Path) -> tuple[Sources, Sources]:
    """(training, held-out) sources of the folder with index.csv; look-alikes leave the training side."""
    every = read_index(data_root / "index.csv")
    training, held_out = split(_outlined(every))
    return sources(without_duplicates(training, held_out), held_out, every)


def _outlined(every: tuple[Picture, ...]) -> tuple[Picture, ...]:
    return from_source(every, TASK1) + from_source(every, HAM10000)


@dataclass(slots=True)
class SegmenterTraining:
    """`run()` trains, or goes on from the last checkpoint in `run_directory`, and exports the weights."""

    data_root: str
    run_directory: str
    weights: str
    steps: int = 4000
    batch_size: int = 4
    peak_rate: float = 4e-4
    weight_decay: float = 1e-3
    seed: int = 20170
    threads: int = 1

    def run(self) -> None:
        """Trains to the last step, writing checkpoints on the way and the shipped weights at the end."""
        torch.set_num_threads(self.threads)
        cv2.setNumThreads(1)
        torch.manual_seed(self.seed)
        state = self._state()
        state.resume(self._checkpoint())
        training, _ = split_sources(Path(self.data_root))
        saved, began, first = time.monotonic(), time.monotonic(), state.step
        for batch in self._batches(training, state.step):
            losses = self._advance(state, batch)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                state.save(self._checkpoint())
                saved = time.monotonic()
            if state.step % 20 == 0:
                self._report(state.step, losses, (time.monotonic() - began) / (state.step - first))
        state.save(self._checkpoint())
        origin = {"steps": str(state.step), "seed": str(self.seed)}
        save_half(Path(self.weights), state.average.state_dict(), origin)

    def _checkpoint(self) -> Path:
        return Path(self.run_directory) / "checkpoint.pt"

    def _batches(self, training: Sources, first: int) -> Iterator[Batch]:
        batches = SceneBatches(training, self.batch_size, self.steps, self.seed)
        rest = Subset(batches, range(first, self.steps))
        in_order = SequentialSampler(rest)
        yield from DataLoader(rest, batch_size=None, sampler=in_order, num_workers=1, prefetch_factor=6)

    def _state(self) -> TrainingState:
        network = build_segmenter()
        load_imagenet(network)
        pixels_last(network)
        optimizer = torch.optim.AdamW(_groups(network, self.weight_decay), lr=self.peak_rate)
        return TrainingState.of(network, optimizer)

    def _advance(self, state: TrainingState, batch: Batch) -> dict[str, float]:
        """One step of the optimiser; returns the losses."""
        network = cast("LesionMaskRCNN", state.network.train())
        freeze_statistics(network)
        rate = cosine_rate(self.peak_rate, state.step, self.steps, WARM_UP_STEPS)
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        losses = network.losses(*batch)
        state.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        state.optimizer.step()
        state.end_step(AVERAGING)
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _report(self, step: int, losses: dict[str, float], seconds: float) -> None:
        left = (self.steps - step) * seconds / 60
        named = {name.removeprefix("loss_"): round(value, 3) for name, value in losses.items()}
        print(
            json.dumps(
                {
                    "step": step,
                    "of": self.steps,
                    "s_per_step": round(seconds, 3),
                    "minutes_left": round(left, 1),
                    **named,
                }
            ),
            flush=True,
        )


def _groups(network: LesionMaskRCNN, decay: float) -> list[dict[str, object]]:
    """The pretrained body learns at half the rate; norms and biases do not decay."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        groups.setdefault((name.startswith("backbone.body"), parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "share": 0.5 if body else 1.0, "weight_decay": decay if matrix else 0.0}
        for (body, matrix), parameters in groups.items()
    ]
