"""Lesion or skin? A second, linear look at each find, its surroundings and the lesion map there.

The region head learns from pictures that nearly all show a lesion, and takes faint mottled skin for one. This
look is fitted afterwards, on the trained network's own finds in skin without a lesion and on lesions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

STRIDES = (8, 16, 32)
"""Pixels of the network's frame per cell of each pyramid level."""
MAP_STRIDE = 4
"""The same of the lesion map."""
CONTEXT = 1.7
"""Sides of the surroundings that are looked at, in sides of the box."""
BOX_CELLS, CONTEXT_CELLS, MAP_CELLS = 3, 5, 12
"""Cells in a row at which levels are read in the box and round it, and the map round it."""
OF_MAP, OF_FIND = 4, 6
"""Figures of the whole map, and of the find itself."""
LEAST_CERTAIN = 1e-4
"""Scores are kept this far from 0 and 1 when their logit is taken."""
DOUBT = 0.3
"""A find that is a lesion with less probability than this, by the second opinion, keeps half its score."""
SURE = 20.0
"""The logit with which an unfitted second opinion takes everything for a lesion."""


class SecondOpinion(nn.Linear):
    """Evidence (N, columns) -> probability (N,) of a lesion; takes all for lesions until fitted."""

    def __init__(self, channels: int) -> None:
        """`channels`: of a pyramid level."""
        super().__init__(2 * len(STRIDES) * channels + MAP_CELLS**2 + OF_MAP + OF_FIND, 1)

    def reset_parameters(self) -> None:
        """Takes all for lesions again."""
        nn.init.zeros_(self.weight)
        nn.init.constant_(self.bias, SURE)

    def forward(self, evidence: Tensor) -> Tensor:
        """The probability of a lesion, 0..1."""
        return super().forward(evidence)[:, 0].sigmoid()


def doubted(scores: Tensor, opinion: Tensor) -> Tensor:
    """Scores (N,) of finds, halved where the `opinion` (N,) is below DOUBT."""
    return torch.where(opinion < DOUBT, 0.5 * scores, scores)


def evidence(
    levels: Sequence[Tensor], lesion_map: Tensor, found: Mapping[str, Tensor], size: tuple[int, int]
) -> Tensor:
    """What can be seen of finds in one picture of `size` (height, width): (N, columns), float.

    `levels` (1, C, h, w), finest first; `lesion_map`: logits (1, 1, h, w); `found`: boxes (N, 4), scores (N,)
    of the region head, soft masks (N, 1, side, side).
    """
    boxes = found["boxes"]
    wide = widened(boxes, size)
    columns = []
    for level, stride in zip(levels, STRIDES, strict=True):
        for region, cells in ((boxes, BOX_CELLS), (wide, CONTEXT_CELLS)):
            seen = roi_align(level, [region], cells, 1 / stride, sampling_ratio=2, aligned=True)
            columns.append(seen.mean((2, 3)))
    around = roi_align(lesion_map, [wide], MAP_CELLS, 1 / MAP_STRIDE, sampling_ratio=1, aligned=True)
    columns += [around.flatten(1), _of_map(lesion_map, size).expand(len(boxes), -1), _of_finds(found, size)]
    return torch.cat(columns, 1)


def widened(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (N, 4) CONTEXT times as wide and high round the same middle, cut off at the frame's border."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, CONTEXT * (boxes[:, 2:] - boxes[:, :2]) / 2
    wide = torch.cat([middle - half, middle + half], 1)
    most = wide.new_tensor([size[1], size[0]] * 2)
    return torch.minimum(wide.clamp(min=0), most)


def _of_map(lesion_map: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean and greatest logit, mean probability and share of lesion of the map, without its padding."""
    height, width = (-(-side // MAP_STRIDE) for side in size)
    seen = lesion_map[0, 0, :height, :width]
    return torch.stack([seen.mean(), seen.max(), seen.sigmoid().mean(), (seen > 0).float().mean()])


def _of_finds(found: Mapping[str, Tensor], size: tuple[int, int]) -> Tensor:
    """Width, height and area in shares of the frame; mean and sharpness of the mask; logit of the score."""
    sides = (found["boxes"][:, 2:] - found["boxes"][:, :2]) / found["boxes"].new_tensor([size[1], size[0]])
    soft = found["masks"][:, 0]
    figures = [
        soft.mean((1, 2)),
        (soft - 0.5).abs().mean((1, 2)),
        found["scores"].logit(LEAST_CERTAIN),
    ]
    return torch.cat([sides, sides.prod(1, keepdim=True), torch.stack(figures, 1)], 1)
