"""Where a training run stands: network, averaged copy, optimiser, step and checks, kept in one file."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn


class OtherRun(ValueError):
    """A checkpoint belongs to a run that was set up in another way."""


@dataclass(slots=True)
class Standing:
    """The numbers of a run that is under way."""

    step: int = 0
    seconds: float = 0.0
    """Spent on steps and checks so far, interruptions not counted."""
    best_score: float = -math.inf
    best_step: int = 0
    checks_without_gain: int = 0
    rate_factor: float = 1.0
    """What the plateau schedule has left of the learning rate."""
    stopped_early: bool = False


@dataclass(slots=True)
class TrainingState:
    """A run that a checkpoint can bring back; `average` is the network whose weights are shipped."""

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    identity: str = ""
    """What the run was set up from; a checkpoint of another one is refused."""
    standing: Standing = field(default_factory=Standing)
    best: dict[str, torch.Tensor] | None = None
    """The averaged weights of the best check, where a run may stop early."""

    @classmethod
    def of(cls, network: nn.Module, optimizer: torch.optim.Optimizer, identity: str = "") -> TrainingState:
        """The state before the first step."""
        return cls(network, copy.deepcopy(network).eval(), optimizer, identity)

    @property
    def step(self) -> int:
        """Steps done."""
        return self.standing.step

    def resume(self, checkpoint: Path) -> None:
        """Goes on where `checkpoint` was written, if there is one; `OtherRun` where it is a foreign one."""
        if not checkpoint.is_file():
            return
        saved: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
        if saved["identity"] != self.identity:
            raise OtherRun(
                f"{checkpoint} belongs to another run ({saved['identity']}; now {self.identity}): "
                "name another run directory, or delete that file to start afresh"
            )
        self.network.load_state_dict(saved["network"])
        self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.best = saved["best"]
        self.standing = Standing(**{each.name: saved["standing"][each.name] for each in fields(Standing)})

    def save(self, checkpoint: Path) -> None:
        """Writes `checkpoint` whole or not at all."""
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        scratch = checkpoint.with_name(checkpoint.name + ".new")
        parts = {
            "identity": self.identity,
            "standing": asdict(self.standing),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
        }
        torch.save(parts, scratch)
        scratch.replace(checkpoint)

    @torch.no_grad()
    def end_step(self, keep: float) -> None:
        """Counts the step and moves the averaged weights, which keep `keep` of themselves (less early on).

        Running statistics are averaged too; counters are taken over.
        """
        self.standing.step += 1
        keep = min(keep, (1 + self.step) / (10 + self.step))
        ours, theirs = self.average.state_dict(), self.network.state_dict()
        for name, value in ours.items():
            if value.is_floating_point():
                value.lerp_(theirs[name], 1 - keep)
            else:
                value.copy_(theirs[name])

    def note_score(self, score: float, *, keep_best: bool) -> None:
        """Takes the result of a check: is it the best so far, and how many were not?"""
        if score > self.standing.best_score:
            self.standing.best_score, self.standing.best_step = score, self.step
            self.standing.checks_without_gain = 0
            if keep_best:
                self.best = {k: v.detach().clone() for k, v in self.average.state_dict().items()}
        else:
            self.standing.checks_without_gain += 1

    def shipped(self) -> dict[str, torch.Tensor]:
        """The weights to export: those of the best check where they were kept, else the averaged ones."""
        return self.best if self.best is not None else self.average.state_dict()
