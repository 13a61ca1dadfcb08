"""Phantoms are the same for a seed, and their masks are true."""

from __future__ import annotations

import numpy as np
import pytest

from cds_plugin.phantom import draw_phantom
from cds_plugin.phantom.scene import MOST_LESIONS

SEEDS = range(8)


def test_the_same_seed_gives_the_same_picture() -> None:
    first, second = draw_phantom(5, width=600, height=450), draw_phantom(5, width=600, height=450)
    np.testing.assert_array_equal(first.rgb, second.rgb)
    assert len(first.masks) == len(second.masks)
    assert not np.array_equal(first.rgb, draw_phantom(6, width=600, height=450).rgb)


def test_the_default_size() -> None:
    phantom = draw_phantom(1)
    assert phantom.rgb.shape == (900, 1200, 3)
    assert phantom.rgb.dtype == np.uint8
    assert phantom.pixel_spacing_mm == pytest.approx(1 / 60)


@pytest.mark.parametrize("seed", SEEDS)
def test_masks_never_overlap_and_lie_apart(seed: int) -> None:
    phantom = draw_phantom(seed, width=600, height=450)
    assert 1 <= len(phantom.masks) <= MOST_LESIONS
    assert len(phantom.masks) == len(phantom.kinds)
    together = np.sum(phantom.masks, axis=0)
    assert together.max() == 1
    for mask in phantom.masks:
        assert mask.shape == (450, 600)
        assert mask.sum() > 400


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lesion_stands_out_from_the_skin_round_it(seed: int) -> None:
    phantom = draw_phantom(seed, width=600, height=450)
    skin = phantom.rgb[~np.logical_or.reduce(phantom.masks)].astype(float)
    spread = np.abs(skin - np.median(skin, axis=0)).mean()
    for mask in phantom.masks:
        difference = np.abs(np.median(phantom.rgb[mask], axis=0) - np.median(skin, axis=0)).max()
        assert difference > max(15.0, spread)


@pytest.mark.parametrize("count", range(1, MOST_LESIONS + 1))
def test_a_number_of_lesions_can_be_asked_for(count: int) -> None:
    assert len(draw_phantom(11, lesions=count, width=600, height=450).masks) == count


def test_skin_types_darken_from_one_to_six() -> None:
    tones = []
    for skin_type in range(1, 7):
        phantom = draw_phantom(3, lesions=1, skin_type=skin_type, width=600, height=450)
        tones.append(float(np.median(phantom.rgb[~phantom.masks[0]])))
        assert phantom.skin_type == skin_type
    assert tones == sorted(tones, reverse=True)
