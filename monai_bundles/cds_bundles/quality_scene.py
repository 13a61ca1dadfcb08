"""What kind of picture is it: dermoscopy of a lesion or of bare skin, a photograph, or something else?"""

from __future__ import annotations

from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import nn

from cds_bundles.classifier_network import ARCHITECTURE, Start, packaged_weights
from cds_bundles.quality_measures import central
from cds_bundles.resize import resize_rgb

KINDS = ("lesion", "bare_skin", "photograph", "foreign")
"""Dermoscopy with a lesion; dermoscopy without one; skin as an ordinary camera sees it; no skin at all."""

SHORT_SIDE = 160
"""Pixels of the shorter side that the network sees."""
STRIDE = 16
"""Both sides of the network's input are multiples of this."""
STAGES = 5
"""Of the body's blocks; timm would keep and run the two behind them too."""
FEATURE_LEVEL = 3
"""The body ends at stride 16: textures and colours tell the kinds apart, whole objects need not be known."""

Rgb = NDArray[np.uint8]


class SceneNetwork(nn.Module):
    """The first stages of EfficientNet-Lite0 and one layer: (N, 3, H, W) float32 in -1..1 to (N, 4) logits.

    Mean and maximum over the picture are both seen: a kind of picture is everywhere, a lesion is somewhere.
    """

    def __init__(self, start: Start = "none") -> None:
        """`start`: where the body's weights come from, as in `lesion_network`."""
        super().__init__()
        body: Any = timm.create_model(
            ARCHITECTURE, pretrained=start == "timm", features_only=True, out_indices=(FEATURE_LEVEL,)
        )
        body.blocks = body.blocks[:STAGES]
        self.body: nn.Module = body
        if start == "package":
            body.load_state_dict(packaged_weights(body.state_dict()))
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(2 * body.feature_info.channels()[0], len(KINDS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits in the order of KINDS."""
        (features,) = self.body(x)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)
        logits: torch.Tensor = self.head(self.drop(pooled))
        return logits


def scene_input(rgb: Rgb) -> torch.Tensor:
    """`rgb` (H, W, 3) uint8 sRGB of any size as float32 (1, 3, h, w) in -1..1, channels last in memory."""
    part = central(rgb)
    scale = SHORT_SIDE / min(part.shape[:2])
    height, width = (STRIDE * max(1, round(side * scale / STRIDE)) for side in part.shape[:2])
    return to_scene_batch([resize_rgb(part, width, height)])


def to_scene_batch(pictures: list[Rgb]) -> torch.Tensor:
    """Pictures (H, W, 3) uint8 of one size as float32 (N, 3, H, W) in -1..1, channels last in memory."""
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(torch.float32)
    return batch.div_(127.5).sub_(1.0).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def kinds(network: nn.Module, rgb: Rgb, device: torch.device) -> dict[str, float]:
    """The probability of each of KINDS for `rgb` (H, W, 3) uint8 sRGB; they sum to 1."""
    row = torch.softmax(network(scene_input(rgb).to(device))[0], dim=0)
    return dict(zip(KINDS, (float(value) for value in row), strict=True))
