"""The gate's second network: which kind of picture is it?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cds_bundles.quality_scene import KINDS, STRIDE, SceneNetwork, kinds, scene_input


@pytest.mark.parametrize(("height", "width"), [(450, 600), (1, 1), (3000, 20), (64, 64)])
def test_any_picture_gets_a_probability_of_every_kind(height: int, width: int) -> None:
    torch.manual_seed(3)
    network = SceneNetwork().eval()
    rgb = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = kinds(network, rgb, torch.device("cpu"))
    assert tuple(found) == KINDS
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-5)
    assert all(side % STRIDE == 0 for side in scene_input(rgb).shape[2:])
