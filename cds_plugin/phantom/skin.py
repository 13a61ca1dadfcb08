"""Skin without a lesion: light dimmed by melanin and blood (Beer-Lambert), under furrows and grain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cds_plugin.phantom.fields import Field, Random, along, cell_net, fractal, grain, single

FITZPATRICK_MELANIN = (0.04, 0.10, 0.22, 0.48, 0.95, 1.55)
"""Melanin of skin types I to VI, in units of `MELANIN`; chosen by eye."""
MELANIN = np.array([0.36, 0.62, 0.86], np.float32)
"""Optical density of one unit in R, G, B."""
BLOOD = np.array([0.06, 0.62, 0.46], np.float32)
DERMIS = np.array([246, 228, 214], np.float32)
"""What would come back from skin without either, in sRGB."""

Colours = NDArray[np.float32]
"""(height, width, 3), sRGB 0-255."""


def draw_skin(rng: Random, height: int, width: int, skin_type: int) -> Colours:
    """Return skin of Fitzpatrick type 1 to 6."""
    melanin = FITZPATRICK_MELANIN[skin_type - 1] * rng.uniform(0.8, 1.25)
    blood = rng.uniform(0.15, 0.85) * (1.0 - 0.08 * skin_type)
    density = _melanin(rng, height, width, melanin)[..., None] * MELANIN
    density = density + _blood(rng, height, width, blood)[..., None] * BLOOD
    relief = _furrows(rng, height, width)
    return single(DERMIS * np.exp(-density) * (1.0 + relief)[..., None])


def _melanin(rng: Random, height: int, width: int, amount: float) -> Field:
    unit = width / 1200
    mottled = (
        1.0
        + 0.10 * fractal(rng, height, width, 160 * unit)
        + 0.05 * fractal(rng, height, width, 14 * unit, 3)
    )
    freckles = np.clip(fractal(rng, height, width, 46 * unit, 2) - 1.5, 0, 1) * rng.choice([0.0, 0.10, 0.25])
    net = cell_net(rng, height, width, 13 * unit, 3.2 * unit) * rng.uniform(0.0, 0.14)
    return single(amount * np.clip(mottled, 0.5, 1.6) * (1.0 + net) + freckles)


def _blood(rng: Random, height: int, width: int, amount: float) -> Field:
    unit = width / 1200
    flush = (
        1.0
        + 0.22 * fractal(rng, height, width, 300 * unit, 3)
        + 0.10 * fractal(rng, height, width, 30 * unit, 3)
    )
    capillaries = along(
        (height, width),
        rng.uniform(0, np.pi),
        rng.uniform(1.5, 3.0),
        lambda rows, columns: cell_net(rng, rows, columns, 42 * unit, 2.0 * unit),
    )
    seen = np.clip(fractal(rng, height, width, 180 * unit, 2), 0, 1) * rng.choice([0.0, 0.15, 0.35])
    return single(amount * (np.clip(flush, 0.4, 1.8) + seen * capillaries))


def _furrows(rng: Random, height: int, width: int) -> Field:
    """Return relative brightness: fine furrows in one main direction, pores, and the grain of the surface."""
    unit = width / 1200
    lines = along(
        (height, width),
        rng.uniform(0, np.pi),
        rng.uniform(1.4, 2.6),
        lambda rows, columns: cell_net(rng, rows, columns, rng.uniform(16, 30) * unit, 1.9 * unit),
    )
    faded = np.clip(0.6 + 0.6 * fractal(rng, height, width, 220 * unit, 2), 0, 1.3)
    sign = rng.choice([-1.0, 1.0])
    surface = 0.012 * grain(rng, height, width, 3 * unit + 1) + 0.010 * grain(
        rng, height, width, 7 * unit + 1
    )
    return single(sign * rng.uniform(0.01, 0.05) * faded * lines + surface)
