"""The gate's second network: which kind of picture is it?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cds_bundles.quality_scene import KINDS, STRIDE, SceneNetwork, kinds, scene_input
from cds_bundles.quality_scene_fit import Features, SceneFit, fit_head, left_out


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(("height", "width"), [(450, 600), (1, 1), (3000, 20), (64, 64)])
def test_any_picture_gets_a_probability_of_every_kind(height: int, width: int) -> None:
    torch.manual_seed(3)
    network = SceneNetwork().eval()
    rgb = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = kinds(network, rgb, torch.device("cpu"))
    assert tuple(found) == KINDS
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-5)
    assert all(side % STRIDE == 0 for side in scene_input(rgb).shape[2:])


def features(count: int, seed: int) -> Features:
    """Two of three numbers say which kind it is; the third is loud and says nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(KINDS), count)
    values = np.stack([labels % 2, labels // 2, rng.normal(0, 300, count)], axis=1)
    values[:, :2] += rng.normal(0, 0.15, (count, 2))
    return Features(values.astype(np.float32), labels, rng.integers(1, 5, count))


class Small(SceneNetwork):
    """A network whose body gives three numbers."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.head = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))


def test_a_head_learns_the_kinds_and_standardises_its_input_itself() -> None:
    torch.manual_seed(1)
    network = Small()
    head = fit_head(network, features(1500, 1), 20)
    new = features(400, 2)
    with torch.inference_mode():
        found = network.head(torch.from_numpy(new.values)).argmax(1).numpy()
    assert head is network.head
    assert (found == new.labels).mean() > 0.97


def test_figures_are_of_folds_that_were_left_out() -> None:
    torch.manual_seed(1)
    honest = features(1000, 1)
    told = left_out(Small(), honest, 40)
    assert all(told[f"auc_{name}"] > 0.95 for name in KINDS[1:]), told
    guesses = np.random.default_rng(5).permutation(honest.labels)
    guessed = left_out(Small(), Features(honest.values, guesses, honest.folds), 5)
    assert all(0.4 < guessed[f"auc_{name}"] < 0.6 for name in KINDS[1:]), guessed


@pytest.mark.slow
def test_a_fit_that_was_stopped_ends_as_if_it_had_not_been(derm_test_data: Path, tmp_path: Path) -> None:
    def fit(directory: str, batches: int) -> SceneFit:
        where = tmp_path / directory
        return SceneFit(str(derm_test_data), str(where), str(where / "w.safetensors"), batches, 4, 2)

    torch.manual_seed(2)
    network = SceneNetwork().eval()
    whole = fit("whole", 6)._features(network)
    sources = fit("stopped", 6)
    parts = sources._looked_at(network, 4)
    assert np.array_equal(next(parts)[1].values, whole.values[16:20])
    assert len(whole.labels) == 24 and np.array_equal(fit("whole", 6)._features(network).values, whole.values)
