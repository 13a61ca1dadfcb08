"""Draws where the classifier sees each finding: a crop beside the same crop under its activation map."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from cds_plugin.results import codes
from cds_plugin.results.colours import colours_of
from cds_plugin.results.drawing import centred
from cds_plugin.results.lettering import BACKGROUND, Line, banner, font, text_block
from cds_plugin.study import Analysis, HeatMap, Rgb

MAX_MAPS = 20
"""More would make the picture longer than anybody reads."""
SIDE = 300
"""Pixels of a crop as it is drawn, whatever the network saw."""
GAP = 10
ROW_OF = 2
"""Lesions beside each other."""
WIDTH = ROW_OF * (2 * SIDE + GAP) + (ROW_OF + 1) * GAP
FONT_PX = 20
SHARE = 0.7
"""How far the strongest evidence hides the crop below it."""
EXPLANATION = (
    "Left the crop that the classifier looked at, right its class activation map over the same crop in grey.",
    "Dark: nothing speaks for the class. Bright: what speaks most for it here; each map has its own scale.",
    "A map says where the network looked, not whether it is right, and not how sure it is.",
)
SCALE_WORDS = "nothing  <  evidence for the class, in each map by itself  <  most"
NOTHING = "No lesion was classified, so there is no map."


def draw_heat_maps(analysis: Analysis, frame: int | None = None) -> Rgb:
    """Return the maps of an analysis under a banner, with a scale and what it means; (rows, WIDTH, 3)."""
    face = font(FONT_PX)
    heading = [*([f"Frame {frame}"] if frame is not None else []), *EXPLANATION]
    left_out = len(analysis.lesions) - len(analysis.heat_maps)
    below = [f"and {left_out} more lesions"] if left_out > 0 and analysis.heat_maps else []
    below += [] if analysis.heat_maps else [NOTHING]
    below += [f"{each.name} {each.version} ({each.sha256[:12]})" for each in analysis.bundles]
    parts = (
        banner(WIDTH, face),
        text_block(map(Line, heading), WIDTH, face),
        _scale(),
        *_rows(analysis),
        text_block(map(Line, below), WIDTH, font(FONT_PX * 4 // 5)),
    )
    return np.vstack([centred(part, WIDTH) for part in parts])


def heated(heat_map: HeatMap) -> Rgb:
    """Return the crop (S, S, 3) in grey under its evidence, from black to yellow."""
    grey = cv2.cvtColor(cv2.cvtColor(heat_map.crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    share = SHARE * np.clip(heat_map.evidence, 0, 1)[..., None]
    return np.asarray(grey * (1 - share) + _colours(heat_map.evidence) * share, np.uint8)


def titled_pair(heat_map: HeatMap) -> Rgb:
    """Return one map by itself, under the notice and what it is evidence for."""
    picture, face = pair(heat_map), font(16)
    title = f"lesion {heat_map.number}: evidence for {codes.FINDINGS[heat_map.finding].meaning}"
    width = picture.shape[1]
    return np.vstack([banner(width, face), text_block([Line(title)], width, face), picture])


def pair(heat_map: HeatMap) -> Rgb:
    """Return the crop and, beside it, its map; (SIDE, 2 * SIDE + GAP, 3)."""
    crop, heat = (
        cv2.resize(each, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        for each in (heat_map.crop, heated(heat_map))
    )
    gap = np.full((SIDE, GAP, 3), BACKGROUND, np.uint8)
    return np.hstack([np.asarray(crop, np.uint8), gap, np.asarray(heat, np.uint8)])


def _colours(evidence: NDArray[np.float32]) -> Rgb:
    levels = (np.clip(evidence, 0, 1) * 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1], np.uint8)


def _scale() -> Rgb:
    ramp = _colours(np.tile(np.linspace(0, 1, 2 * SIDE, dtype=np.float32), (FONT_PX, 1)))
    words = text_block([Line(SCALE_WORDS)], ramp.shape[1], font(16))
    return np.vstack([ramp, words])


def _rows(analysis: Analysis) -> Iterator[Rgb]:
    for start in range(0, len(analysis.heat_maps), ROW_OF):
        tiles = [_tile(each, analysis) for each in analysis.heat_maps[start : start + ROW_OF]]
        blank = np.full((tiles[0].shape[0], GAP, 3), BACKGROUND, np.uint8)
        empty = [np.full_like(tiles[0], BACKGROUND[0])] * (ROW_OF - len(tiles))
        yield np.hstack([part for tile in (*tiles, *empty) for part in (blank, tile)])


def _tile(heat_map: HeatMap, analysis: Analysis) -> Rgb:
    picture = pair(heat_map)
    lesion = next(each for each in analysis.lesions if each.number == heat_map.number)
    colour = colours_of(analysis.lesions)[lesion.number]
    meaning = codes.FINDINGS[heat_map.finding].meaning
    title = text_block([Line(f"for: {meaning}", lesion.number, colour)], picture.shape[1], font(16))
    return np.vstack([title[:36], picture])
