"""Models without weights: a dark picture is refused, a red one fails, a green one kills the process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from answering_models import Assessment, Segmenter, Square
from marks import NAME

from cds_plugin.study import Rgb

DARK = 40


class Gate:
    """Likes every picture that is not dark."""

    def __call__(self, rgb: Rgb) -> Assessment:
        if rgb.mean() < DARK:
            return Assessment("non_diagnostic", ("too dark",))
        return Assessment()


class Finder(Segmenter):
    """Finds a square; of a red picture it quotes a patient, a green one ends its process, the first time."""

    def __init__(self, killed: str) -> None:
        super().__init__()
        self.killed = Path(killed)

    def __call__(self, rgb: Rgb) -> Sequence[Square]:
        red, green, blue = (float(rgb[..., each].mean()) for each in range(3))
        if red > green + blue:
            raise ValueError(f"no room for {NAME}")
        if green > red + blue and not self.killed.exists():
            self.killed.touch()
            os.abort()
        return super().__call__(rgb)
