"""Colours that stay apart for colour-blind eyes and on skin: Okabe and Ito's set without black."""

from __future__ import annotations

RgbColour = tuple[int, int, int]

PALETTE: tuple[RgbColour, ...] = (
    (86, 180, 233),
    (240, 228, 66),
    (0, 158, 115),
    (204, 121, 167),
    (0, 114, 178),
    (230, 159, 0),
    (213, 94, 0),
)
"""sRGB, 0-255 (Okabe and Ito, Color Universal Design, 2008); the farthest from skin come first."""


def colour_of(number: int) -> RgbColour:
    """Return the colour of lesion `number`, 1 and up; after seven they repeat."""
    return PALETTE[(number - 1) % len(PALETTE)]
