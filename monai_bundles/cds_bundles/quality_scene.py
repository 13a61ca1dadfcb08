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

SHORT_SIDE = 192
"""Pixels of the shorter side that the network sees."""
STRIDE = 16
"""Both sides of the network's input are multiples of this."""
STAGES = 5
"""Of the body's blocks; timm would keep and run the two behind them too."""
FEATURE_LEVELS = (1, 2, 3)
"""Strides 4, 8 and 16: textures and colours tell the kinds apart, whole objects need not be known."""
HIDDEN = 64

Rgb = NDArray[np.uint8]


class SceneNetwork(nn.Module):
    """The first stages of EfficientNet-Lite0 and two layers: (N, 3, H, W) float32 in -1..1 to (N, 4) logits.

    Mean, maximum and spread over the picture are seen at every level: a kind of picture is everywhere, a
    lesion is somewhere, and the gloss of dry skin is in the spread of what is fine.
    """

    def __init__(self, start: Start = "none") -> None:
        """`start`: where the body's weights come from, as in `lesion_network`."""
        super().__init__()
        body: Any = timm.create_model(
            ARCHITECTURE, pretrained=start == "timm", features_only=True, out_indices=FEATURE_LEVELS
        )
        body.blocks = body.blocks[:STAGES]
        self.body: nn.Module = body
        if start == "package":
            body.load_state_dict(packaged_weights(body.state_dict()))
        self.features = 3 * sum(body.feature_info.channels())
        self.head = nn.Sequential(
            nn.Linear(self.features, HIDDEN), nn.ReLU(), nn.Dropout(0.3), nn.Linear(HIDDEN, len(KINDS))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits in the order of KINDS."""
        logits: torch.Tensor = self.head(self.pooled(x))
        return logits

    def pooled(self, x: torch.Tensor) -> torch.Tensor:
        """(N, `features`): mean, maximum and spread of every channel, level after level."""
        levels: list[torch.Tensor] = self.body(x)
        seen = [(each.mean((2, 3)), each.amax((2, 3)), each.std((2, 3), correction=0)) for each in levels]
        return torch.cat([part for parts in seen for part in parts], dim=1)


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
