"""Finds the lesions of a dermoscopy picture and outlines each at full resolution. Not for diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from .resize import resize_rgb
from .segmenter_network import build_segmenter, pixels_last
from .weights import load_half

MAX_LESIONS = 20
"""More finds than this in one picture are no lesions any more; the best-scored ones are kept."""
SMALLEST_SIDE = 8
"""Pixels; narrower pictures hold no lesion that could be outlined."""
DUPLICATE_IOU = 0.5
"""Two outlines that share more than this (intersection over union) are one lesion."""
DUPLICATE_COVER = 0.7
"""An outline that lies within a better-scored one by more than this share of itself is a part of it."""
AGREEMENT_IOU = 0.5
"""Boxes of two looks at a picture that overlap more than this are of the same find."""
CONTOUR_GRID = 128
"""Cells; outlines are smoothed and cleaned on a grid of at most this side before they are enlarged."""
SMOOTHING_CELLS = 1.2
"""Cells of the soft mask; takes the staircase off outlines (overlap with annotated ones stays the same)."""
BORDER_PIXELS = 2.0
"""Of the network's frame: a box that ends this close to the frame's border is cut by it."""
LONGEST_FRAME_SIDE = 512
"""Pixels of the network's frame, whatever the aspect ratio."""
SMALLEST_AREA_SHARE = 0.0005
"""Of the frame: about a tenth of the area of the smallest lesions in training."""


@dataclass(frozen=True, slots=True, eq=False)
class LesionInstance:
    """One lesion: where it is, which pixels it covers, and how sure the network is."""

    bbox: tuple[int, int, int, int]
    """(x0, y0, x1, y1) in pixels of the picture, x1 and y1 exclusive, tight round the mask."""
    mask: NDArray[np.bool_]
    """(y1 - y0, x1 - x0), true on the lesion."""
    score: float
    """0 to 1; not a calibrated probability."""


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """A find in the network's frame: float box (4,), soft mask (cells, cells) of 0..1, score."""

    box: NDArray[np.float32]
    soft: NDArray[np.float32]
    score: float


class LesionSegmenter:
    """Callable: an sRGB picture in, its lesions out, best score first.

    `weights` is a half-precision safetensors file. Every picture is looked at twice: resized to an area of
    `frame_pixels`, and mirrored, at `second_frame_pixels`, where small lesions are seen better.
    """

    def __init__(
        self,
        weights: str | Path,
        device: str = "cpu",
        score_threshold: float = 0.6,
        frame_pixels: int = 76_800,
        second_frame_pixels: int = 102_400,
    ) -> None:
        self.device = torch.device(device)
        self.score_threshold = score_threshold
        self.frame_pixels, self.second_frame_pixels = frame_pixels, second_frame_pixels
        network = build_segmenter()
        load_half(Path(weights), network)
        self.network = pixels_last(network).to(self.device)

    def __call__(self, rgb: NDArray[np.uint8]) -> tuple[LesionInstance, ...]:
        """The lesions of `rgb` (H, W, 3) uint8; empty where there are none or the picture is too narrow."""
        rows, columns = rgb.shape[:2]
        if min(rows, columns) < SMALLEST_SIDE:
            return ()
        height, width = self.frame_size(rows, columns)
        finds = self.select(self.candidates(rgb), height, width)
        outlined = (outline_at(find, (height, width), (rows, columns)) for find in finds)
        smallest = SMALLEST_AREA_SHARE * rows * columns
        return tuple(lesion for lesion in outlined if lesion is not None and lesion.mask.sum() >= smallest)

    def frame_size(self, rows: int, columns: int, pixels: int | None = None) -> tuple[int, int]:
        """(height, width) of a frame of the picture's aspect ratio and `pixels` (else of the first look)."""
        scale = ((pixels or self.frame_pixels) / (rows * columns)) ** 0.5
        scale = min(scale, LONGEST_FRAME_SIDE / max(rows, columns))
        return max(16, round(rows * scale)), max(16, round(columns * scale))

    def candidates(self, rgb: NDArray[np.uint8]) -> tuple[Detection, ...]:
        """What two looks at `rgb` (H, W, 3) agree on, in the frame of the first one, best score first."""
        height, width = self.frame_size(*rgb.shape[:2])
        rows, columns = self.frame_size(rgb.shape[0], rgb.shape[1], self.second_frame_pixels)
        first = self.detect(resize_rgb(rgb, width, height))
        mirrored = self.detect(np.ascontiguousarray(resize_rgb(rgb, columns, rows)[:, ::-1]))
        scale = (width / columns, height / rows)
        return agreed(first, [scaled(unmirrored(find, columns), scale) for find in mirrored])

    @torch.inference_mode()
    def detect(self, frame: NDArray[np.uint8]) -> tuple[Detection, ...]:
        """Every find in `frame` (H, W, 3) uint8, however poor its score, best first."""
        picture = torch.from_numpy(frame).to(self.device).permute(2, 0, 1).float() / 255.0
        found = self.network.find(picture)
        boxes, scores = found["boxes"].cpu().numpy(), found["scores"].cpu().numpy()
        masks = found["masks"].cpu().numpy()[:, 0]
        order = np.argsort(-scores, kind="stable")
        return tuple(Detection(boxes[i], masks[i], float(scores[i])) for i in order)

    def select(self, finds: Sequence[Detection], height: int, width: int) -> tuple[Detection, ...]:
        """Those above the threshold that repeat no better one, at most MAX_LESIONS."""
        kept: list[tuple[Detection, NDArray[np.bool_]]] = []
        for find in finds:
            if find.score < self.score_threshold or len(kept) == MAX_LESIONS:
                break
            mask = in_frame(find, height, width)
            if mask.any() and not any(same_lesion(mask, other) for _, other in kept):
                kept.append((find, mask))
        return tuple(find for find, _ in kept)


def unmirrored(find: Detection, width: int) -> Detection:
    """`find` of a mirrored frame `width` pixels wide, turned back."""
    x0, y0, x1, y1 = find.box
    box = np.array([width - x1, y0, width - x0, y1], np.float32)
    return Detection(box, np.ascontiguousarray(find.soft[:, ::-1]), find.score)


def scaled(find: Detection, scale: tuple[float, float]) -> Detection:
    """`find` in a frame that is `scale` (x, y) times as large."""
    return Detection(find.box * np.array(scale * 2, np.float32), find.soft, find.score)


def agreed(first: Sequence[Detection], second: Sequence[Detection]) -> tuple[Detection, ...]:
    """Each of `first` averaged with its partner in `second`, best score first.

    Partners' boxes overlap by more than AGREEMENT_IOU; what has none keeps half its score.
    """
    left, pairs = list(second), []
    for find in first:
        overlaps = [box_iou(find.box, other.box) for other in left]
        if overlaps and max(overlaps) > AGREEMENT_IOU:
            pairs.append(_mean(find, left.pop(int(np.argmax(overlaps)))))
        else:
            pairs.append(Detection(find.box, find.soft, find.score / 2))
    return tuple(sorted(pairs, key=lambda find: -find.score))


def _mean(find: Detection, other: Detection) -> Detection:
    half = np.float32(0.5)
    box = half * (find.box + other.box)
    return Detection(box, half * (find.soft + other.soft), (find.score + other.score) / 2)


def box_iou(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    shared = float(np.prod(np.maximum(sides, 0.0)))
    areas = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]))
    return shared / max(areas - shared, 1e-6)


def same_lesion(mask: NDArray[np.bool_], better: NDArray[np.bool_]) -> bool:
    """True where `mask` repeats `better` or is a part of it; both (H, W)."""
    shared = int((mask & better).sum())
    area, other = int(mask.sum()), int(better.sum())
    return shared > DUPLICATE_IOU * (area + other - shared) or shared > DUPLICATE_COVER * min(area, other)


def in_frame(find: Detection, height: int, width: int) -> NDArray[np.bool_]:
    """The find's mask in the network's frame, (height, width)."""
    full = np.zeros((height, width), bool)
    lesion = outline_at(find, (height, width), (height, width))
    if lesion is not None:
        x0, y0, x1, y1 = lesion.bbox
        full[y0:y1, x0:x1] = lesion.mask
    return full


def outline_at(find: Detection, frame: tuple[int, int], picture: tuple[int, int]) -> LesionInstance | None:
    """`find` of a `frame` (height, width) in a `picture` (rows, columns); None where no pixel is left.

    The soft mask is enlarged with a cubic kernel to a grid, where all but its largest part is cleared, then
    linearly to pixels: a bilinear field above one half stays in one piece. Nothing larger than the box is
    built.
    """
    cut = cut_sides(find.box, frame)
    box = np.where(cut, (0, 0, frame[1], frame[0]), find.box)
    x0, y0, x1, y1 = _pixels(box, find.soft.shape[0], frame, picture)
    if x1 <= x0 or y1 <= y0:
        return None
    padded = cv2.GaussianBlur(
        _padded(find.soft, cut), (0, 0), SMOOTHING_CELLS, borderType=cv2.BORDER_REPLICATE
    )
    cells = (min(CONTOUR_GRID, x1 - x0), min(CONTOUR_GRID, y1 - y0))
    grid = cv2.resize(padded, cells, interpolation=cv2.INTER_CUBIC)
    cleaned = _largest_part(np.clip(grid * 255.0, 0, 255).astype(np.uint8))
    mask = cv2.resize(cleaned, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR) > 127
    return _tight(mask, (x0, y0), picture, find.score)


def cut_sides(box: NDArray[np.float32], frame: tuple[int, int]) -> NDArray[np.bool_]:
    """Which sides (4,) of `box` (x0, y0, x1, y1) the border of `frame` (height, width) cuts."""
    gaps = np.array([box[0], box[1], frame[1] - box[2], frame[0] - box[3]])
    return np.asarray(gaps < BORDER_PIXELS)


def _padded(soft: NDArray[np.float32], cut: NDArray[np.bool_]) -> NDArray[np.float32]:
    """`soft` with one cell more on every side: of skin, or going on where the frame's border cuts it."""
    padded = np.pad(soft, 1, mode="edge")
    left, top, right, bottom = (0.0 if not each else 1.0 for each in cut)
    padded[:, 0] *= left
    padded[:, -1] *= right
    padded[0] *= top
    padded[-1] *= bottom
    return padded


def _pixels(
    box: NDArray[np.float64], cells: int, frame: tuple[int, int], picture: tuple[int, int]
) -> tuple[int, int, int, int]:
    """The box in pixels, widened by the one cell that its `cells` are padded with."""
    scale = np.array([picture[1] / frame[1], picture[0] / frame[0]] * 2)
    box = box * scale
    cell = (box[2:] - box[:2]) / cells
    x0, y0, x1, y1 = np.round(np.concatenate([box[:2] - cell, box[2:] + cell])).astype(int)
    return int(x0), int(y0), int(x1), int(y1)


def _largest_part(soft: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`soft` with every 4-connected part above one half cleared but the largest."""
    count, labels, areas, _ = cv2.connectedComponentsWithStats((soft > 127).astype(np.uint8), connectivity=4)
    if count <= 2:
        return soft
    largest = 1 + int(np.argmax(areas[1:, cv2.CC_STAT_AREA]))
    return np.where((labels == largest) | (labels == 0), soft, 0).astype(np.uint8)


def _tight(
    mask: NDArray[np.bool_], corner: tuple[int, int], picture: tuple[int, int], score: float
) -> LesionInstance | None:
    """The instance whose box is tight round the part of `mask` that lies within the picture."""
    left, top = max(0, -corner[0]), max(0, -corner[1])
    mask = mask[top : picture[0] - corner[1], left : picture[1] - corner[0]]
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not columns.size:
        return None
    inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    x0, y0 = corner[0] + left + int(columns[0]), corner[1] + top + int(rows[0])
    bbox = (x0, y0, x0 + inner.shape[1], y0 + inner.shape[0])
    return LesionInstance(bbox, np.ascontiguousarray(inner), score)
