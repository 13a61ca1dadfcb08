"""The training loop: resumed, stopped early, within a budget, and never going on from what is not its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from cds_bundles.training_loop import Batch, LossNotFinite, Plan, TrainingLoop, cosine_rate
from cds_bundles.training_state import OtherRun
from cds_bundles.weights import weights_metadata


class Line:
    """Learns y = 3 x with batch normalisation and dropout on the way, so that hidden state matters."""

    def __init__(
        self,
        scores: Callable[[nn.Module, int], float] | None = None,
        seconds: float = 0.0,
        name: str = "line",
        spoilt_at: int = -1,
    ) -> None:
        torch.manual_seed(4)
        self.network: nn.Module = nn.Sequential(
            nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 1)
        )
        self._scores, self._seconds, self._name, self._spoilt_at = scores, seconds, name, spoilt_at
        self.checks = 0

    def optimizer(self, rate: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.network.parameters(), lr=rate)

    def batch_maker(self) -> Callable[[int, float], Batch]:
        return self._batch

    def _batch(self, step: int, _done: float) -> Batch:
        rows = torch.randn(8, 2, generator=torch.Generator().manual_seed(step))
        return rows * (float("nan") if step == self._spoilt_at else 1.0), 3 * rows[:, :1]

    def train_mode(self, network: nn.Module) -> None:
        network.train()

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        time.sleep(self._seconds)
        return {"error": nn.functional.mse_loss(network(batch[0]), batch[1])}

    def score(self, network: nn.Module, done: float) -> float:
        self.checks += 1
        return self._scores(network, self.checks) if self._scores else 0.0

    def facts(self) -> dict[str, str]:
        return {"task": self._name}


def weights_of(network: nn.Module) -> list[torch.Tensor]:
    return list(network.state_dict().values())


def interrupted(loop: TrainingLoop, at: int) -> None:
    """Runs `loop` until the batch of step `at` fails, as a killed process would end it."""
    whole = loop.task.batch_maker()

    def until(step: int, done: float) -> Batch:
        if step == at:
            raise KeyboardInterrupt
        return whole(step, done)

    loop.task.batch_maker = lambda: until  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        loop.train()


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(schedule: str, tmp_path: Path) -> None:
    plan = Plan(
        steps=40,
        learning_rate=0.05,
        schedule=schedule,  # type: ignore[arg-type]
        check_every=5,
        plateau=1,
        patience=30,
        checkpoint_seconds=0.0,
        device="cpu",
    )
    whole = TrainingLoop(Line(lambda _, check: -float(check)), plan, tmp_path / "whole")
    whole.run(tmp_path / "whole.safetensors")
    first = TrainingLoop(Line(lambda _, check: -float(check)), plan, tmp_path / "parts")
    interrupted(first, at=23)
    second = TrainingLoop(Line(lambda _, check: -float(check) - 4), plan, tmp_path / "parts")
    second.run(tmp_path / "parts.safetensors")
    assert second.standing.step == whole.standing.step == 40
    assert second.standing.rate_factor == whole.standing.rate_factor
    for ours, theirs in zip(weights_of(second.state.average), weights_of(whole.state.average), strict=True):
        assert torch.equal(ours, theirs)
    assert (tmp_path / "whole.safetensors").read_bytes()[1000:] == (
        tmp_path / "parts.safetensors"
    ).read_bytes()[1000:]


def test_batches_made_ahead_by_a_process_are_the_same(tmp_path: Path) -> None:
    loops = [
        TrainingLoop(Line(), Plan(12, 0.05, workers=workers, device="cpu"), tmp_path / str(workers))
        for workers in (0, 1)
    ]
    for loop in loops:
        loop.train()
    for ours, theirs in zip(*(weights_of(loop.state.network) for loop in loops), strict=True):
        assert torch.equal(ours, theirs)


def test_a_run_without_a_gain_stops_and_ships_its_best_weights(tmp_path: Path) -> None:
    best: dict[str, torch.Tensor] = {}

    def falling_after_the_second(network: nn.Module, check: int) -> float:
        if check == 2:
            best.update({name: value.clone() for name, value in network.state_dict().items()})
        return {1: 0.5, 2: 0.7}.get(check, 0.6)

    plan = Plan(1000, 0.05, check_every=5, patience=3, device="cpu")
    loop = TrainingLoop(Line(falling_after_the_second), plan, tmp_path)
    facts = loop.run(tmp_path / "w.safetensors")
    assert loop.standing.step == 25
    assert (facts["best_step"], facts["stopped_early"], facts["steps"]) == ("10", "True", "25")
    assert all(torch.equal(loop.state.shipped()[name], value) for name, value in best.items())
    scores = [json.loads(line)["score"] for line in (tmp_path / "checks.jsonl").read_text().splitlines()]
    assert scores == [0.5, 0.7, 0.6, 0.6, 0.6]
    again = TrainingLoop(Line(falling_after_the_second), plan, tmp_path)
    again.train()
    assert again.standing.step == 25


def test_a_plateau_lowers_the_rate(tmp_path: Path) -> None:
    plan = Plan(40, 0.1, schedule="plateau", warm_up=0.0, check_every=5, plateau=2, device="cpu")
    loop = TrainingLoop(Line(lambda _, check: 1.0), plan, tmp_path)
    loop.train()
    rates = [json.loads(line)["rate"] for line in (tmp_path / "checks.jsonl").read_text().splitlines()]
    assert rates[0] == pytest.approx(0.1)
    assert loop.standing.rate_factor == pytest.approx(0.3**3)


def test_a_budget_is_kept_and_the_schedule_fitted_to_it(tmp_path: Path) -> None:
    plan = Plan(1_000_000, 0.05, budget_minutes=0.02, device="cpu")
    loop = TrainingLoop(Line(seconds=0.01), plan, tmp_path)
    began = time.monotonic()
    facts = loop.run(tmp_path / "w.safetensors")
    assert 1.2 <= loop.standing.seconds < 5
    assert time.monotonic() - began < 15
    assert 2 < loop.standing.step < 130
    assert loop.state.optimizer.param_groups[0]["lr"] < 0.05 * 0.2
    assert facts["budget_minutes"] == "0.02"
    assert weights_metadata(tmp_path / "w.safetensors") == facts
    assert int(facts["steps"]) == loop.standing.step < int(facts["steps_planned"])


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    TrainingLoop(Line(), Plan(3, 0.05, device="cpu"), tmp_path).train()
    with pytest.raises(OtherRun, match="another run directory"):
        TrainingLoop(Line(name="curve"), Plan(3, 0.05, device="cpu"), tmp_path).train()
    with pytest.raises(OtherRun):
        TrainingLoop(Line(), Plan(3, 0.05, seed=21, device="cpu"), tmp_path).train()


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    loop = TrainingLoop(Line(spoilt_at=3), Plan(9, 0.05, device="cpu"), tmp_path)
    with pytest.raises(LossNotFinite, match="step 3"):
        loop.run(tmp_path / "w.safetensors")
    assert not (tmp_path / "w.safetensors").exists()


def test_logs_for_tensorboard_are_written(tmp_path: Path) -> None:
    TrainingLoop(Line(), Plan(3, 0.05, check_every=1, device="cpu"), tmp_path).train()
    (events,) = (tmp_path / "tensorboard").rglob("events.*")
    written = events.read_bytes()
    assert b"training/error" in written and b"training/rate" in written and b"validation/score" in written


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"steps": 5, "patience": 2}, {"steps": 5, "schedule": "plateau"}]
)
def test_a_plan_that_does_not_fit_together_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"steps|check_every"):
        Plan(learning_rate=0.1, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="validation_share"):
        Plan(5, 0.1, check_every=1).check_validation(0.0)


def test_the_rate_rises_and_then_falls() -> None:
    rates = [cosine_rate(1.0, step / 100, warm_up=0.1) for step in range(101)]
    assert rates.index(max(rates)) == 10
    assert rates[0] == pytest.approx(0.01) and rates[-1] == pytest.approx(0.01)
    assert all(earlier >= later for earlier, later in pairwise(rates[10:]))
