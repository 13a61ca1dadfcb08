"""Where a training run stands: network, averaged copy, optimiser and step, kept in one checkpoint file."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn


@dataclass(slots=True)
class TrainingState:
    """A run that a checkpoint can bring back; `average` is the network whose weights are shipped."""

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0

    @classmethod
    def of(cls, network: nn.Module, optimizer: torch.optim.Optimizer) -> TrainingState:
        """The state before the first step."""
        return cls(network, copy.deepcopy(network).eval(), optimizer)

    def resume(self, checkpoint: Path) -> None:
        """Goes on where `checkpoint` was written; nothing where there is none."""
        if not checkpoint.is_file():
            return
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        self.network.load_state_dict(saved["network"])
        self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step = int(saved["step"])

    def save(self, checkpoint: Path) -> None:
        """Writes `checkpoint` whole or not at all."""
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

    @torch.no_grad()
    def end_step(self, keep: float) -> None:
        """Counts the step and moves the averaged weights, which keep `keep` of themselves (less early on).

        Running statistics are averaged too; counters are taken over.
        """
        self.step += 1
        keep = min(keep, (1 + self.step) / (10 + self.step))
        ours, theirs = self.average.state_dict(), self.network.state_dict()
        for name, value in ours.items():
            if value.is_floating_point():
                value.lerp_(theirs[name], 1 - keep)
            else:
                value.copy_(theirs[name])


def cosine_rate(peak: float, step: int, steps: int, warm_up: int) -> float:
    """Learning rate: linear over `warm_up` steps, then half a cosine down to a hundredth of `peak`."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
