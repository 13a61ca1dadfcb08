"""The gate's second network: which kind of picture is it? And a training run that can be interrupted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cds_bundles.quality_scene import KINDS, STRIDE, SceneNetwork, kinds, scene_input
from cds_bundles.training_state import TrainingState, cosine_rate


@pytest.mark.parametrize(("height", "width"), [(450, 600), (1, 1), (3000, 20), (64, 64)])
def test_any_picture_gets_a_probability_of_every_kind(height: int, width: int) -> None:
    torch.manual_seed(3)
    network = SceneNetwork().eval()
    rgb = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = kinds(network, rgb, torch.device("cpu"))
    assert tuple(found) == KINDS
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-5)
    assert all(side % STRIDE == 0 for side in scene_input(rgb).shape[2:])


def state(seed: int) -> TrainingState:
    torch.manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    return TrainingState.of(network, torch.optim.AdamW(network.parameters(), lr=0.1))


def advance(run: TrainingState, steps: int) -> None:
    while run.step < steps:
        rows = torch.randn(8, 4, generator=torch.Generator().manual_seed(run.step))
        run.optimizer.zero_grad()
        run.network.train()(rows).square().sum().backward()
        run.optimizer.step()
        run.end_step(0.9)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    whole, first, second = state(1), state(1), state(2)
    advance(whole, 20)
    advance(first, 11)
    first.save(tmp_path / "checkpoint.pt")
    second.resume(tmp_path / "checkpoint.pt")
    assert second.step == 11
    advance(second, 20)
    for ours, theirs in zip(
        second.average.state_dict().values(), whole.average.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_without_a_checkpoint_a_run_starts_at_the_beginning(tmp_path: Path) -> None:
    run = state(1)
    run.resume(tmp_path / "none.pt")
    assert run.step == 0


def test_the_average_follows_slowly() -> None:
    run = state(1)
    advance(run, 5)
    moved = [
        float((ours - theirs).detach().abs().max())
        for ours, theirs in zip(run.average.parameters(), run.network.parameters(), strict=True)
    ]
    assert max(moved) > 0


def test_the_rate_rises_and_falls() -> None:
    rates = [cosine_rate(1.0, step, 100, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0)
    assert rates[9:] == sorted(rates[9:], reverse=True) and rates[-1] < 0.02
