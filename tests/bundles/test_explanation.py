"""Activation maps point at what the network looks at, and the measures of them are right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cds_bundles.classifier_network import lesion_network
from cds_bundles.explanation import ActivationMaps, deletion_and_insertion, energy_inside
from cds_bundles.explanation_evaluation import likeness, randomised

SIDE = 64


class Roughness(nn.Module):
    """Two classes: how rough the left upper quarter is, and its opposite."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rough = x[:, :, : SIDE // 2, : SIDE // 2].diff(dim=3).abs().mean((1, 2, 3)) * 8 - 2
        return torch.stack([rough, -rough], dim=1)


def quarter() -> np.ndarray:
    heat = np.zeros((SIDE, SIDE), np.float32)
    heat[: SIDE // 2, : SIDE // 2] = 1
    return heat


def test_a_right_map_deletes_fast_and_inserts_fast() -> None:
    crop = np.random.default_rng(2).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    right = deletion_and_insertion(Roughness(), crop, quarter(), 0)
    wrong = deletion_and_insertion(Roughness(), crop, 1 - quarter(), 0)
    assert right[0] < wrong[0] - 0.2
    assert right[1] > wrong[1] + 0.2


def test_energy_inside() -> None:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:, : SIDE // 2] = True
    assert energy_inside(quarter(), mask) == pytest.approx(1.0)
    assert energy_inside(np.ones((SIDE, SIDE), np.float32), mask) == pytest.approx(0.5)
    assert energy_inside(np.zeros((SIDE, SIDE), np.float32), mask) == 0.0


def test_a_map_is_of_the_crop_and_depends_on_the_class_and_the_weights() -> None:
    torch.manual_seed(1)
    network = lesion_network().eval()
    crop = np.random.default_rng(1).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    maps = ActivationMaps(network)
    first, second = maps(crop, 0), maps(crop, 4)
    assert first.shape == (96, 96) and first.min() >= 0 and first.max() == pytest.approx(1.0)
    assert not np.array_equal(first, second)
    assert likeness(first, first) == pytest.approx(1.0)
    assert likeness(first, ActivationMaps(randomised(network))(crop, 0)) < 0.9


def test_randomising_one_layer_leaves_the_others() -> None:
    network = lesion_network()
    shuffled = randomised(network, only="classifier").state_dict()
    before = network.state_dict()
    assert not torch.equal(before["classifier.weight"], shuffled["classifier.weight"])
    assert torch.equal(before["conv_head.weight"], shuffled["conv_head.weight"])
    assert torch.equal(
        before["classifier.weight"].flatten().sort()[0], shuffled["classifier.weight"].flatten().sort()[0]
    )
