"""The one training loop: seeded, resumable, checked on a validation part, within steps or minutes."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import torch
from monai.utils.misc import set_determinism
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from cds_bundles.training_state import Standing, TrainingState
from cds_bundles.weights import save_half

Schedule = Literal["cosine", "plateau"]
Batch = Any
"""What `batch` of a task makes and its `losses` takes: tensors on the CPU, in tuples, lists or dicts."""

LOWEST_RATE = 0.01
"""Share of the learning rate that half a cosine ends with, and below which a plateau does not go."""
PLATEAU_CUT = 0.3
"""What a plateau leaves of the learning rate."""
SECONDS_BETWEEN_REFRESHES = 5.0


class LossNotFinite(ArithmeticError):
    """The loss is no number any more; going on would export weights that say nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to train, how fast, with what, and when to look."""

    steps: int
    learning_rate: float
    schedule: Schedule = "cosine"
    warm_up: float = 0.06
    """Share of the run in which the rate rises."""
    averaging: float = 0.998
    """Share of themselves that the averaged weights keep in a step."""
    gradient_norm: float = 5.0
    check_every: int = 0
    """Steps between looks at the validation part; 0 for none."""
    patience: int = 0
    """Checks without a gain after which training stops and the best weights are exported; 0 for never."""
    plateau: int = 2
    """Checks without a gain after which the plateau schedule lowers the rate."""
    budget_minutes: float = 0.0
    """Minutes that steps and checks may take in all; the schedule is fitted to them. 0 for no limit."""
    checkpoint_seconds: float = 150.0
    seed: int = 20
    threads: int = 1
    workers: int = 0
    """Processes that make batches ahead; 0 makes them in this one."""
    device: str = "auto"
    """"cpu", "cuda", or "auto" for a GPU where there is one."""
    mixed_precision: bool = True
    """bfloat16 on a GPU that has it; a CPU always computes in float32, which was measured faster."""

    def __post_init__(self) -> None:
        """Raises ValueError where the parts do not fit together."""
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; at least 1 is needed")
        if (self.patience or self.schedule == "plateau") and not self.check_every:
            raise ValueError("patience and the plateau schedule need check_every, the steps between checks")

    def check_validation(self, share: float) -> None:
        """Raises ValueError where checks are wanted and no part of the training side is kept for them."""
        if self.check_every and share <= 0:
            raise ValueError("check_every needs a validation_share above 0: held-out folds are not looked at")


class TrainingTask(Protocol):
    """What is particular to one network's training."""

    network: nn.Module

    def optimizer(self, rate: float) -> torch.optim.Optimizer:
        """Over the parameters to train; a group's "share", where it has one, multiplies its rate."""

    def batch_maker(self) -> Callable[[int, float], Batch]:
        """Makes the batch of a step from the step's number and the share of the run that is done."""

    def train_mode(self, network: nn.Module) -> None:
        """Puts `network` into training mode, but for what stays frozen."""

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Losses of a batch, to be added up."""

    def score(self, network: nn.Module, done: float) -> float:
        """How good the averaged `network` is on the validation part; higher is better."""

    def facts(self) -> dict[str, str]:
        """What the run is set up from; stands in the weights' header and guards the checkpoint."""


@torch.no_grad()
def negative_loss(
    task: TrainingTask, network: nn.Module, make: Callable[[int, float], Batch], batches: int
) -> float:
    """A score where nothing better is at hand: minus the mean loss of the first `batches` of `make`."""
    device = next(network.parameters()).device
    total = 0.0
    for number in range(batches):
        torch.manual_seed(number)
        losses = task.losses(network, moved(make(number, 1.0), device))
        total += sum(float(loss) for loss in losses.values())
    return -total / batches


def device_of(name: str) -> torch.device:
    """The device that `name` stands for; "auto" is a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def cosine_rate(peak: float, done: float, warm_up: float) -> float:
    """Learning rate at share `done` of the run: linear until `warm_up`, then half a cosine to a hundredth."""
    if done < warm_up:
        return peak * max(done / warm_up, LOWEST_RATE)
    rest = min(1.0, (done - warm_up) / max(1e-9, 1 - warm_up))
    return peak * (LOWEST_RATE + (1 - LOWEST_RATE) * 0.5 * (1 + math.cos(math.pi * rest)))


class TrainingLoop:
    """`run()` trains, or goes on from the checkpoint in `directory`, and exports half-precision weights."""

    def __init__(self, task: TrainingTask, plan: Plan, directory: Path, name: str = "") -> None:
        """`directory` holds checkpoint, checks and logs; `name` tells runs apart that share it."""
        prepare_torch(plan)
        self.task, self.plan, self.directory, self.name = task, plan, directory, name
        self.device = device_of(plan.device)
        network = task.network.to(self.device)
        identity = json.dumps(task.facts() | {"seed": str(plan.seed)}, sort_keys=True)
        self.state = TrainingState.of(network, task.optimizer(plan.learning_rate), identity)

    @property
    def standing(self) -> Standing:
        """The run's numbers."""
        return self.state.standing

    @property
    def checkpoint(self) -> Path:
        """Where the run's state lies; written anew every `checkpoint_seconds`."""
        return self.directory / f"{self.name}checkpoint.pt"

    def done(self, step: int) -> float:
        """Share of the run that is over at `step`: of its steps or of its minutes, whichever is more."""
        of_steps = step / self.plan.steps
        if not self.plan.budget_minutes:
            return of_steps
        return max(of_steps, self.standing.seconds / (60 * self.plan.budget_minutes))

    def run(self, weights: Path) -> dict[str, str]:
        """Trains to the end and writes `weights`; returns what their header says."""
        self.train()
        facts = self.facts()
        save_half(weights, self.state.shipped(), facts)
        return facts

    def train(self) -> None:
        """Trains from the last checkpoint, or from the start, to the end."""
        self.state.resume(self.checkpoint)
        self.state.network.to(self.device)
        saved = last = time.monotonic()
        with self._writer() as writer, self._progress() as progress:
            for batch in self._batches():
                losses = self._step(batch)
                self._check(writer)
                now = time.monotonic()
                self.standing.seconds, last = self.standing.seconds + now - last, now
                self._tell(progress, writer, losses)
                if now - saved > self.plan.checkpoint_seconds:
                    self.state.save(self.checkpoint)
                    saved = now
        self.state.save(self.checkpoint)

    def facts(self) -> dict[str, str]:
        """What was trained and how, as text, for the weights' header."""
        plan, standing = self.plan, self.standing
        facts = self.task.facts() | {
            "steps": str(standing.step),
            "steps_planned": str(plan.steps),
            "minutes": f"{standing.seconds / 60:.1f}",
            "schedule": plan.schedule,
            "seed": str(plan.seed),
            "device": self.device.type,
        }
        if plan.budget_minutes:
            facts |= {"budget_minutes": f"{plan.budget_minutes:g}"}
        if standing.stopped_early or self.state.best is not None:
            facts |= {"best_step": str(standing.best_step), "stopped_early": str(standing.stopped_early)}
        return facts

    def _over(self) -> bool:
        return self.standing.stopped_early or self.done(self.standing.step) >= 1

    def _batches(self) -> Iterator[Batch]:
        """Batches of the steps to come, until the run is over."""
        keyed = _KeyedBatches(self.task.batch_maker())
        workers = self.plan.workers
        loader = DataLoader(
            keyed,
            batch_size=None,
            sampler=_Keys(self),
            num_workers=workers,
            prefetch_factor=6 if workers else None,
            worker_init_fn=_quiet_worker if workers else None,
        )
        batches = iter(loader)
        while not self._over():
            batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _step(self, batch: Batch) -> dict[str, float]:
        """One step of the optimiser; returns the losses."""
        state, plan = self.state, self.plan
        torch.manual_seed(plan.seed + state.step)
        rate = self._rate()
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        state.optimizer.zero_grad(set_to_none=True)
        self.task.train_mode(state.network)
        with self._precision():
            losses = self.task.losses(state.network, moved(batch, self.device))
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise LossNotFinite(
                f"the loss is {float(total.detach())} at step {state.step}: lower the learning rate"
            )
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(state.network.parameters(), plan.gradient_norm)
        state.optimizer.step()
        state.end_step(plan.averaging)
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _rate(self) -> float:
        done, plan = self.done(self.standing.step), self.plan
        if plan.schedule == "cosine":
            return cosine_rate(plan.learning_rate, done, plan.warm_up)
        rising = min(1.0, max(done / plan.warm_up, LOWEST_RATE)) if plan.warm_up else 1.0
        return plan.learning_rate * rising * self.standing.rate_factor

    def _precision(self) -> AbstractContextManager[Any]:
        wanted = self.plan.mixed_precision and self.device.type == "cuda"
        if wanted and torch.cuda.is_bf16_supported():
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()

    def _check(self, writer: SummaryWriter) -> None:
        """Looks at the validation part where it is time; slows down or stops where nothing was gained."""
        plan, standing = self.plan, self.standing
        if not plan.check_every or standing.step % plan.check_every:
            return
        score = self.task.score(self.state.average, self.done(standing.step))
        self.state.note_score(score, keep_best=plan.patience > 0)
        writer.add_scalar("validation/score", score, standing.step)
        self._write_check(score)
        idle = standing.checks_without_gain
        if plan.schedule == "plateau" and idle and idle % plan.plateau == 0:
            standing.rate_factor = max(LOWEST_RATE, standing.rate_factor * PLATEAU_CUT)
        standing.stopped_early = bool(plan.patience) and idle >= plan.patience

    def _write_check(self, score: float) -> None:
        note = {"step": self.standing.step, "score": round(score, 4), "rate": self._rate()}
        with (self.directory / f"{self.name}checks.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(note) + "\n")

    def _writer(self) -> SummaryWriter:
        folder = self.directory / "tensorboard" / self.name
        return SummaryWriter(str(folder), purge_step=self.state.step or None)

    def _progress(self) -> tqdm[Any]:
        plan = self.plan
        return tqdm(
            desc=self.name.rstrip("-") or None,
            total=plan.steps,
            initial=self.standing.step,
            file=sys.stderr,
            mininterval=SECONDS_BETWEEN_REFRESHES,
        )

    def _tell(self, progress: tqdm[Any], writer: SummaryWriter, losses: dict[str, float]) -> None:
        step, done = self.standing.step, self.done(self.standing.step)
        if self.plan.budget_minutes:
            progress.total = max(step, round(step / max(done, 1e-9)))
        progress.set_postfix({k: f"{v:.3f}" for k, v in losses.items()}, refresh=False)
        progress.update()
        for name, value in losses.items():
            writer.add_scalar(f"training/{name}", value, step)
        writer.add_scalar("training/rate", self._rate(), step)


class _Keys(Sampler[tuple[int, float]]):
    """The steps to come, each with the share of the run that is done when its batch is asked for."""

    def __init__(self, loop: TrainingLoop) -> None:
        self._loop = loop

    def __iter__(self) -> Iterator[tuple[int, float]]:
        for step in range(self._loop.standing.step, self._loop.plan.steps):
            yield step, self._loop.done(step)


class _KeyedBatches(Dataset[Batch]):
    """A batch maker as the map that a loader reads."""

    def __init__(self, make: Callable[[int, float], Batch]) -> None:
        self._make = make

    def __getitem__(self, key: tuple[int, float]) -> Batch:
        return self._make(*key)


def _quiet_worker(_number: int) -> None:
    """A process that only makes batches: one thread, and one priority step below the training."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.nice(1)


def prepare_torch(plan: Plan) -> None:
    """Threads and seeds as `plan` says."""
    torch.set_num_threads(plan.threads)
    cv2.setNumThreads(1)
    set_determinism(plan.seed)


def moved(batch: Batch, device: torch.device) -> Batch:
    """`batch` with every tensor in it on `device`."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {name: moved(value, device) for name, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(moved(value, device) for value in batch)
    return batch
