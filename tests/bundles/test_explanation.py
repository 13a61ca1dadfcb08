"""Activation maps point at what the network looks at, and the measures of them are right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cds_bundles.classifier_network import lesion_network
from cds_bundles.explanation import ActivationMaps, deletion_and_insertion, energy_inside
from cds_bundles.explanation_evaluation import likeness, randomised

SIDE = 64


def roughness(crops: np.ndarray) -> np.ndarray:
    """Probabilities of two classes: how rough the left upper quarter is, and its opposite."""
    quarter = crops[:, : SIDE // 2, : SIDE // 2].astype(np.float64) / 127.5
    rough = 1 / (1 + np.exp(4 - 16 * np.abs(np.diff(quarter, axis=2)).mean(axis=(1, 2, 3))))
    return np.stack([rough, 1 - rough], axis=1)


def quarter() -> np.ndarray:
    heat = np.zeros((SIDE, SIDE), np.float32)
    heat[: SIDE // 2, : SIDE // 2] = 1
    return heat


def test_a_right_map_deletes_fast_and_inserts_fast() -> None:
    crop = np.random.default_rng(2).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    right = deletion_and_insertion(roughness, crop, quarter(), 0)
    wrong = deletion_and_insertion(roughness, crop, 1 - quarter(), 0)
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
    maps = ActivationMaps([network])
    first, second = maps([crop], 0, 96), maps([crop], 4, 96)
    assert first.shape == (96, 96) and first.min() >= 0 and first.max() == pytest.approx(1.0)
    assert not np.array_equal(first, second)
    assert likeness(first, first) == pytest.approx(1.0)
    assert likeness(first, ActivationMaps([randomised(network)])([crop], 0, 96)) < 0.9


def test_a_map_of_two_networks_is_between_theirs() -> None:
    torch.manual_seed(2)
    networks = [lesion_network().eval(), lesion_network().eval()]
    rng = np.random.default_rng(3)
    crops = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (96, 64)]
    both = ActivationMaps(networks)(crops, 2, 96)
    alone = [ActivationMaps([net])([crop], 2, 96) for net, crop in zip(networks, crops, strict=True)]
    assert both.shape == (96, 96) and both.max() == pytest.approx(1.0)
    assert all(likeness(both, each) > likeness(*alone) for each in alone)


def test_randomising_one_layer_leaves_the_others() -> None:
    network = lesion_network()
    shuffled = randomised(network, only="classifier").state_dict()
    before = network.state_dict()
    assert not torch.equal(before["classifier.weight"], shuffled["classifier.weight"])
    assert torch.equal(before["conv_head.weight"], shuffled["conv_head.weight"])
    assert torch.equal(
        before["classifier.weight"].flatten().sort()[0], shuffled["classifier.weight"].flatten().sort()[0]
    )
