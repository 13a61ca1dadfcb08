"""Where the segmenter's pictures come from: real whole frames, composed, drawn and empty scenes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from .picture_files import read_lesion as read_lesion
from .picture_files import read_rgb as read_rgb
from .resize import resize_rgb
from .scene_artefacts import Mask, Random, Rgb, through_camera
from .scene_drawing import smooth_noise
from .scene_foreign import drawn_shapes, foreign_colours, seen_again
from .scenes import (
    CROWDED,
    USUAL,
    Layout,
    Scene,
    add_distractors,
    bounding_box,
    compose,
    cover_with_skin,
    drawn_skin,
    through_dermatoscope,
)
from .segmenter_sources import DRAWS as DRAWS
from .segmenter_sources import NoneSuitable
from .segmenter_sources import Sources as Sources

FRAMES = ((256, 256), (270, 360), (240, 320), (240, 320), (256, 320), (320, 240), (224, 336), (288, 288))
"""(height, width) that a training batch may have."""


def as_whole_frame(rng: Random, rgb: Rgb, mask: Mask, height: int, width: int) -> Scene:
    """A centre crop as if it were a whole frame: more skin mirrored round it, then a window of another scale.

    Skin is mirrored only as far as the lesion is from the border, so that no lesion appears twice.
    """
    turns, flip = int(rng.integers(4)), rng.random() < 0.5
    rgb, mask = np.rot90(rgb, turns), np.rot90(mask, turns)
    if flip:
        rgb, mask = rgb[:, ::-1], mask[:, ::-1]
    rgb, mask = _more_skin(rng, rgb, mask)
    x0, y0, side_x, side_y = _window(rng, mask, height / width)
    window = np.s_[y0 : y0 + side_y, x0 : x0 + side_x]
    soft = cv2.resize(mask[window].astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return Scene(_resized(rng, np.ascontiguousarray(rgb[window]), width, height), (soft > 0.5,))


def _more_skin(rng: Random, rgb: Rgb, mask: Mask) -> tuple[Rgb, Mask]:
    x0, y0, x1, y1 = bounding_box(mask)
    height, width = mask.shape
    most = rng.uniform(0, 0.4) * max(height, width) if rng.random() < 0.7 else 0.0
    left, top, right, bottom = (int(max(0, min(gap - 4, most))) for gap in (x0, y0, width - x1, height - y1))
    wide = cv2.copyMakeBorder(np.ascontiguousarray(rgb), top, bottom, left, right, cv2.BORDER_REFLECT_101)
    return wide.astype(np.uint8, copy=False), np.pad(mask, ((top, bottom), (left, right)))


def _window(rng: Random, mask: Mask, aspect: float) -> tuple[int, int, int, int]:
    """(x0, y0, width, height) of a window with most of the lesion in view."""
    rows, columns = mask.shape
    widest = min(columns, rows / aspect)
    total = max(1, int(mask.sum()))
    for _ in range(8):
        side_x = int(widest * np.exp(rng.uniform(np.log(0.5), 0.0)) if rng.random() < 0.6 else widest)
        side_y = max(1, int(side_x * aspect))
        x0, y0 = (int(rng.integers(size - side + 1)) for size, side in ((columns, side_x), (rows, side_y)))
        inside = mask[y0 : y0 + side_y, x0 : x0 + side_x].sum() / total
        if inside > (0.55 if rng.random() < 0.3 else 0.98):
            return x0, y0, side_x, side_y
    side_x, side_y = int(widest), max(1, int(widest * aspect))
    return (columns - side_x) // 2, (rows - side_y) // 2, side_x, side_y


def _resized(rng: Random, rgb: Rgb, width: int, height: int) -> Rgb:
    """The pinned kernel mostly; other kernels and a middle step now and then, as strangers' pictures have."""
    if rng.random() < 0.6:
        return resize_rgb(rgb, width, height)
    kernels = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4)
    scale = rng.uniform(0.6, 1.4)
    middle = (max(1, int(width * scale)), max(1, int(height * scale)))
    rgb = cv2.resize(rgb, middle, interpolation=kernels[int(rng.integers(4))]).astype(np.uint8, copy=False)
    return resize_rgb(rgb, width, height)


def real_frame(rng: Random, source: Sources, height: int, width: int) -> Scene:
    """A real outlined picture as a whole frame, lightly changed."""
    rgb, mask = source.files.lesion(source.frame(rng))
    return through_dermatoscope(rng, as_whole_frame(rng, rgb, mask, height, width), strength=0.35)


def composed_scene(rng: Random, source: Sources, height: int, width: int, layout: Layout = USUAL) -> Scene:
    """One to six real lesions on real or drawn skin; drawn lesions where none is wholly in view."""
    skin = _ground(rng, source, height, width)
    try:
        scene = compose(rng, skin, int(rng.integers(1, 7)), source.fragment, layout)
    except NoneSuitable:
        return drawn_scene(rng, height, width)
    return through_dermatoscope(rng, scene)


def _ground(rng: Random, source: Sources, height: int, width: int) -> Rgb:
    if rng.random() < 0.2:
        return drawn_skin(rng, height, width)
    try:
        skin = cover_with_skin(rng, source.empty_skin(rng), height, width)
    except NoneSuitable:
        return drawn_skin(rng, height, width)
    return add_distractors(rng, skin) if rng.random() < 0.1 else skin


def drawn_scene(rng: Random, height: int, width: int) -> Scene:
    """One to six drawn lesions on drawn skin."""
    skin = drawn_skin(rng, height, width)
    return through_dermatoscope(rng, compose(rng, skin, int(rng.integers(1, 7)), None))


def empty_scene_of_skin(
    rng: Random, source: Sources, height: int, width: int, strength: float = 2.0
) -> Scene:
    """Skin without a lesion, through a dermatoscope; `strength` as in `through_dermatoscope`."""
    return through_dermatoscope(rng, Scene(_ground(rng, source, height, width), ()), strength)


def blotched(rng: Random, rgb: Rgb) -> Rgb:
    """Skin (H, W, 3) with more or less pigment and blood here and there, as sun leaves it."""
    height, width = rgb.shape[:2]
    density = np.zeros((height, width, 3), np.float32)
    for colour in ((0.45, 0.85, 1.05), (0.15, 0.75, 0.65)):
        cell = float(np.exp(rng.uniform(np.log(12), np.log(120))))
        noise = smooth_noise(rng, height, width, cell) * np.float32(rng.uniform(0.0, 0.14))
        density += noise[..., None] * np.array(colour, np.float32)
    return np.asarray(np.clip(rgb * np.exp(-density) + 0.5, 0, 255), np.uint8)


def empty_scene(rng: Random, source: Sources, height: int, width: int) -> Scene:
    """Nothing to be found: skin alone, or a picture of something else."""
    kind = rng.random()
    if kind < 0.65:
        skin = _ground(rng, source, height, width)
        skin = blotched(rng, skin) if rng.random() < 0.4 else skin
        return through_dermatoscope(rng, Scene(skin, ()), strength=rng.uniform(0.3, 2.0))
    if kind < 0.85 and source.nonskin:
        rgb = source.files.rgb(source.nonskin[int(rng.integers(len(source.nonskin)))])
        rgb = foreign_colours(rng, rgb) if rng.random() < 0.3 else rgb
        return Scene(seen_again(rng, rgb, height, width), ())
    return Scene(through_camera(rng, drawn_shapes(rng, height, width)), ())


def any_scene(rng: Random, source: Sources, height: int, width: int) -> Scene:
    """The training mixture: real frames 54 %, composed 26 % (half of them crowded), drawn 4 %, empty 16 %."""
    kind = rng.random()
    if kind < 0.54:
        return real_frame(rng, source, height, width)
    if kind < 0.80:
        return composed_scene(rng, source, height, width, CROWDED if kind < 0.67 else USUAL)
    if kind < 0.84:
        return drawn_scene(rng, height, width)
    return empty_scene(rng, source, height, width)


Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


@dataclass(frozen=True, slots=True)
class SceneBatches:
    """Makes the batch of any step: the same one for the same seed and step."""

    source: Sources
    batch_size: int
    seed: int

    def __call__(self, step: int, _done: float = 0.0) -> Batch:
        """(pictures (3, H, W) float 0..1, targets as torchvision's detectors take them)."""
        rng = np.random.default_rng((self.seed, step))
        height, width = FRAMES[int(rng.integers(len(FRAMES)))]
        scenes = [any_scene(rng, self.source, height, width) for _ in range(self.batch_size)]
        return [to_tensor(scene.rgb) for scene in scenes], [to_target(scene) for scene in scenes]


def to_tensor(rgb: Rgb) -> Tensor:
    """(H, W, 3) uint8 as (3, H, W) float32 in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1).float() / 255.0


def to_target(scene: Scene) -> dict[str, Tensor]:
    """boxes (N, 4) float32 x0 y0 x1 y1, labels (N,) all 1, masks (N, H, W) uint8."""
    masks = [mask for mask in scene.masks if mask.any()]
    boxes = np.array([bounding_box(mask) for mask in masks], dtype=np.float32).reshape(-1, 4)
    stacked = np.stack(masks) if masks else np.zeros((0, *scene.rgb.shape[:2]), bool)
    return {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.ones(len(masks), dtype=torch.int64),
        "masks": torch.from_numpy(stacked.astype(np.uint8)),
    }
