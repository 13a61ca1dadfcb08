"""The palette stays apart for colour-blind eyes, and text on it can be read."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cds_plugin.results.colours import PALETTE, RgbColour, ink_on
from cds_plugin.results.placing import Place, free_corner

Floats = NDArray[np.float64]

SIGHT: dict[str, Floats] = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
"""Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB."""

XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = XYZ.sum(axis=1)
APART = 15.0
"""CIELAB; 2.3 is just seen (Mahy 1994). Two strokes some pixels wide want much more."""


def linear(colour: RgbColour) -> Floats:
    share = np.asarray(colour) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lab(rgb: Floats) -> Floats:
    """Return CIELAB (D65) of linear RGB."""
    ratio = (XYZ @ rgb) / WHITE
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def seen(colour: RgbColour, sight: str) -> Floats:
    return lab(np.clip(SIGHT[sight] @ linear(colour), 0, 1))


def test_the_measure_knows_confusable_colours() -> None:
    red, green = (170, 60, 40), (95, 95, 35)
    assert np.linalg.norm(seen(red, "normal") - seen(green, "normal")) > 40
    assert np.linalg.norm(seen(red, "deuteranopia") - seen(green, "deuteranopia")) < APART


@pytest.mark.parametrize("sight", SIGHT)
def test_any_two_colours_are_told_apart(sight: str) -> None:
    distances = [
        float(np.linalg.norm(seen(one, sight) - seen(other, sight)))
        for one, other in combinations(PALETTE, 2)
    ]
    assert min(distances) > APART


@pytest.mark.parametrize("colour", PALETTE)
def test_numbers_on_the_palette_have_contrast(colour: RgbColour) -> None:
    weights = np.array([0.2126, 0.7152, 0.0722])
    ground, ink = float(weights @ linear(colour)), float(weights @ linear(ink_on(colour)))
    assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) > 4.5


boxes = st.tuples(st.integers(0, 700), st.integers(0, 500), st.integers(1, 300), st.integers(1, 300))


@settings(max_examples=30, deadline=None)
@given(st.lists(boxes, min_size=1, max_size=30))
def test_no_number_hides_another_and_none_leaves_the_picture(places: list[tuple[int, int, int, int]]) -> None:
    picture, size = (800, 600), (30, 24)
    taken: list[Place] = []
    for x, y, width, height in places:
        left, top = free_corner((x, y, x + width, y + height), size, picture, taken)
        assert 0 <= left <= picture[0] - size[0] and 0 <= top <= picture[1] - size[1]
        for x0, y0, x1, y1 in taken:
            assert left >= x1 or x0 >= left + size[0] or top >= y1 or y0 >= top + size[1]
        taken.append((left, top, left + size[0], top + size[1]))
