"""What the gate's second network learns from: pictures of every kind, drawn anew each time. Seeded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cds_bundles.index import HELD_OUT_FOLD, Picture, index_file, read_index, split, validation_part
from cds_bundles.picture_files import PictureFiles
from cds_bundles.quality_scene import KINDS, to_scene_batch
from cds_bundles.quality_variants import on_darker_skin
from cds_bundles.resize import resize_rgb
from cds_bundles.scene_artefacts import Random, Rgb, change_light, through_camera
from cds_bundles.scene_foreign import drawn_shapes, foreign_colours
from cds_bundles.scenes import (
    Fragment,
    Scene,
    compose,
    cover_with_skin,
    cut_fragment,
    lesion_free_part,
    through_dermatoscope,
)
from cds_bundles.segmenter_data import (
    DRAWS,
    Sources,
    composed_scene,
    drawn_scene,
    empty_scene_of_skin,
    read_lesion,
    read_rgb,
    real_frame,
)
from cds_bundles.segmenter_sources import split_sources, validation_sources

SHARES = (0.42, 0.17, 0.28, 0.13)
"""How often each of KINDS is drawn."""
ASPECTS = ((1.0, 1.0), (1.0, 1.3), (1.0, 1.4), (1.0, 1.5), (1.3, 1.0))
"""(height, width) of a batch's pictures over their shorter side."""
MULTIPLE = 16
ARTEFACTS = 0.35
"""How often photographs get hair, rulers, ink and dark corners: as often as real dermoscopy, so that none of
these tells the kinds apart."""
MELANIN_ADDED = (0.3, 1.05)
ADAPTED_BY = (1.0, 1.8)
"""Ranges of what `on_darker_skin` takes."""
DARKER = 0.3
"""How often any picture of skin, of whatever kind, is shown on darker skin."""

PLAIN = 0.2
"""How often a real lesion or photograph is shown as it is, whole."""

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class SceneSources:
    """Training pictures of every kind."""

    dermoscopy: Sources
    photographs: tuple[Picture, ...]

    @classmethod
    def of(cls, data: Path, fold: int = HELD_OUT_FOLD, files: PictureFiles | None = None) -> SceneSources:
        """The training side of the index `data`, or of index.csv in that folder."""
        every = read_index(index_file(data))
        photographs, _ = split((p for p in every if p.is_photograph), fold)
        return cls(split_sources(data, fold, files)[0], photographs)

    def in_two(self, share: float, seed: int) -> tuple[SceneSources, SceneSources]:
        """What is trained on, and about `share` of the pictures for looking on the way."""
        rest, looked_at = validation_sources(self.dermoscopy, share, seed)
        photographs, other = validation_part(self.photographs, share, seed)
        return SceneSources(rest, photographs), SceneSources(looked_at, other)

    @property
    def shares(self) -> NDArray[np.float64]:
        """How often each of KINDS is drawn: never what there are no pictures of."""
        shares = np.array(SHARES)
        shares[KINDS.index("photograph")] *= bool(self.photographs)
        return np.asarray(shares / shares.sum())

    def draw(self, rng: Random, kind: str, height: int, width: int) -> Rgb:
        """A picture (height, width, 3) of `kind`, one of KINDS."""
        if kind == "foreign":
            return self.foreign(rng, height, width)
        makers: dict[str, Callable[[Random, int, int], Rgb]] = {
            "lesion": self.lesion,
            "bare_skin": self.bare_skin,
            "photograph": self.photograph,
        }
        if kind != "bare_skin" and rng.random() < PLAIN:
            paths = self.photographs if kind == "photograph" else (self.dermoscopy.lesion(rng),)
            return _as_it_is(rng, read_rgb(paths[int(rng.integers(len(paths)))].path), height, width)
        rgb = makers[kind](rng, height, width)
        return _darker(rng, rgb) if rng.random() < DARKER else rgb

    def lesion(self, rng: Random, height: int, width: int) -> Rgb:
        """Dermoscopy with at least one lesion: real, composed or drawn."""
        makers: tuple[Callable[[], Rgb], ...] = (
            lambda: real_frame(rng, self.dermoscopy, height, width).rgb,
            lambda: composed_scene(rng, self.dermoscopy, height, width).rgb,
            lambda: drawn_scene(rng, height, width).rgb,
        )
        return makers[int(rng.choice(3, p=(0.7, 0.18, 0.12)))]()

    def bare_skin(self, rng: Random, height: int, width: int) -> Rgb:
        """Dermoscopy of skin with no lesion in view."""
        return empty_scene_of_skin(rng, self.dermoscopy, height, width, strength=0.5).rgb

    def photograph(self, rng: Random, height: int, width: int) -> Rgb:
        """Skin as an ordinary camera sees it, from another distance and in another light each time.

        Now and then another photograph's lesion, or nothing, stands on the skin.
        """
        if rng.random() < 0.2 and any(each.mask_path for each in self.photographs):
            rgb = self._composed_photograph(rng, height, width)
        else:
            rgb = _closer(rng, _coarser(rng, read_rgb(self._any_photograph(rng).path)), height, width)
        return through_dermatoscope(rng, Scene(rgb, ()), ARTEFACTS).rgb

    def foreign(self, rng: Random, height: int, width: int) -> Rgb:
        """No skin: everyday photographs, drawn shapes and noise, pictures of skin in impossible colours."""
        kind = rng.random()
        paths = self.dermoscopy.nonskin
        if kind < 0.5 and paths:
            rgb = _closer(rng, read_rgb(paths[int(rng.integers(len(paths)))]), height, width)
            return through_camera(rng, change_light(rng, rgb))
        if kind < 0.75:
            return drawn_shapes(rng, height, width)
        return foreign_colours(rng, self.lesion(rng, height, width))

    def _any_photograph(self, rng: Random) -> Picture:
        return self.photographs[int(rng.integers(len(self.photographs)))]

    def _outlined_photograph(self, rng: Random) -> Picture:
        outlined = [each for each in self.photographs if each.mask_path]
        return outlined[int(rng.integers(len(outlined)))]

    def _composed_photograph(self, rng: Random, height: int, width: int) -> Rgb:
        skin = cover_with_skin(rng, self._bare_photograph(rng), height, width)
        return compose(rng, skin, int(rng.integers(0, 3)), self._photographed_lesion).rgb

    def _bare_photograph(self, rng: Random) -> Rgb:
        for _ in range(DRAWS):
            part = lesion_free_part(*read_lesion(self._outlined_photograph(rng)))
            if part is not None:
                return part
        raise LookupError(f"{DRAWS} photographs without enough skin beside the lesion")

    def _photographed_lesion(self, rng: Random) -> Fragment:
        for _ in range(DRAWS):
            cut = cut_fragment(*read_lesion(self._outlined_photograph(rng)))
            if cut is not None:
                return cut
        raise LookupError(f"{DRAWS} photographs without a lesion wholly in view")


def _as_it_is(rng: Random, rgb: Rgb, height: int, width: int) -> Rgb:
    """The middle of `rgb`, as large as the shape allows, turned or mirrored."""
    rgb = np.rot90(rgb, int(rng.integers(4)))[:, :: int(rng.choice((-1, 1)))]
    scale = min(rgb.shape[0] / height, rgb.shape[1] / width)
    rows, columns = max(1, int(height * scale)), max(1, int(width * scale))
    top, left = (rgb.shape[0] - rows) // 2, (rgb.shape[1] - columns) // 2
    part = np.ascontiguousarray(rgb[top : top + rows, left : left + columns])
    return resize_rgb(part, width, height)


def _darker(rng: Random, rgb: Rgb) -> Rgb:
    return on_darker_skin(rgb, rng.uniform(*MELANIN_ADDED), rng.uniform(*ADAPTED_BY))


def _coarser(rng: Random, rgb: Rgb) -> Rgb:
    """Fewer pixels now and then, squeezed a little: what other cameras and scalers make of it."""
    if rng.random() < 0.6:
        return rgb
    scale = rng.uniform(0.5, 1.0) * np.exp(rng.uniform(-0.12, 0.12, 2))
    height, width = (max(64, int(side * each)) for side, each in zip(rgb.shape[:2], scale, strict=True))
    return resize_rgb(rgb, width, height)


def _closer(rng: Random, rgb: Rgb, height: int, width: int) -> Rgb:
    """A part of `rgb`, most of it mostly."""
    share = rng.uniform(0.75, 1.0) if rng.random() < 0.65 else rng.uniform(0.35, 0.75)
    part = max(32, int(min(rgb.shape[:2]) * share))
    top, left = (int(rng.integers(size - part + 1)) for size in rgb.shape[:2])
    crop = np.ascontiguousarray(rgb[top : top + part, left : left + part])
    return cover_with_skin(rng, crop, height, width)


@dataclass(frozen=True, slots=True)
class SceneBatches:
    """Makes the batch of any step: the same one for the same seed and step."""

    sources: SceneSources
    batch: int
    seed: int
    short_side: int

    def __call__(self, step: int, _done: float = 0.0) -> Batch:
        """(pictures (N, 3, H, W) float32 in -1..1, places in KINDS (N,))."""
        rng = np.random.default_rng((self.seed, step))
        aspect = ASPECTS[int(rng.integers(len(ASPECTS)))]
        height, width = (MULTIPLE * round(self.short_side * side / MULTIPLE) for side in aspect)
        labels: NDArray[np.intp] = rng.choice(len(KINDS), self.batch, p=self.sources.shares)
        pictures = [self.sources.draw(rng, KINDS[label], height, width) for label in labels]
        return to_scene_batch(pictures), torch.from_numpy(labels)
