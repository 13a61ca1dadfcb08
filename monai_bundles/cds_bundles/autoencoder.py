"""How well a convolutional autoencoder of dermoscopy reconstructs a picture: PSNR in dB, on RGB in [0, 1]."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from cds_bundles.quality_measures import central
from cds_bundles.resize import resize_rgb

SHORT_SIDE = 128
"""Pixels of the shorter side that the network sees."""

STRIDE = 16
"""The network halves four times: both sides must be multiples of this."""

HIGHEST_PSNR_DB = 100.0
"""Reported for a reconstruction without error, so that the figure stays finite."""


def network_size(rows: int, columns: int) -> tuple[int, int]:
    """(rows, columns) of the network's input for a picture of that many: both multiples of `STRIDE`."""
    scale = SHORT_SIDE / min(rows, columns)
    height, width = (STRIDE * max(1, round(side * scale / STRIDE)) for side in (rows, columns))
    return height, width


def network_input(rgb: NDArray[np.uint8]) -> torch.Tensor:
    """`rgb` (H, W, 3) uint8 sRGB of any size as float32 (1, 3, h, w) in [0, 1]."""
    part = central(rgb)
    height, width = network_size(*part.shape[:2])
    return as_tensor(resize_rgb(part, width, height))[None]


def as_tensor(rgb: NDArray[np.uint8]) -> torch.Tensor:
    """(H, W, 3) uint8 as float32 (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1), dtype=np.float32) / 255.0)


def psnr_db(original: torch.Tensor, reconstruction: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of two tensors in [0, 1]: -10 log10 of the mean squared error."""
    error = float(torch.mean((original - reconstruction.clamp(0.0, 1.0)) ** 2))
    return min(HIGHEST_PSNR_DB, -10.0 * math.log10(max(error, 1e-12)))


@torch.inference_mode()
def reconstruction_psnr_db(network: torch.nn.Module, rgb: NDArray[np.uint8], device: torch.device) -> float:
    """PSNR in dB of `network`'s reconstruction of `rgb` (H, W, 3) uint8 sRGB, clipped to [0, 1]."""
    image = network_input(rgb).to(device)
    return psnr_db(image, network(image))
