"""The quality gate: is a picture good enough to be analysed, and if not, what should the photographer do?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cds_bundles.autoencoder import reconstruction_psnr_db
from cds_bundles.quality_limits import Verdict, defect_score, judge, read_limits, strangeness
from cds_bundles.quality_measures import measure
from cds_bundles.quality_scene import kinds
from cds_bundles.weights import load_half


@dataclass(frozen=True, slots=True)
class QualityAssessment:
    """What the gate says of one picture; `reasons` is empty only for a diagnostic one."""

    verdict: Verdict
    reasons: tuple[str, ...]
    psnr_db: float | None
    """PSNR in dB of the autoencoder's reconstruction, on RGB in [0, 1]."""
    defect: float | None
    """The worst defect by the table: over 0.5 doubtful, over 1 useless; None where no row ever refuses."""
    measures: Mapping[str, float]
    """Every measure by name; `psnr_db`, `strangeness` and the probability of each of KINDS among them."""


class QualityGate:
    """Judges pictures by the limits that it is given; built by inference.json."""

    def __init__(
        self,
        network: torch.nn.Module,
        weights: str,
        scene_network: torch.nn.Module,
        scene_weights: str,
        limits: Iterable[Mapping[str, Any]],
        device: str = "cpu",
    ) -> None:
        """`network` reconstructs pictures, `scene_network` tells their kinds apart; both untrained."""
        self.limits = read_limits(limits)
        self._device = torch.device(device)
        self._network = load_half(Path(weights), network).to(self._device)
        scene = load_half(Path(scene_weights), scene_network).to(self._device)
        self._scene = scene.to(memory_format=torch.channels_last)

    def __call__(self, rgb: NDArray[np.uint8]) -> QualityAssessment:
        """The assessment of `rgb`, uint8 (H, W, 3) sRGB of any size from 1x1 up."""
        measures = self.measure(rgb)
        verdict, reasons = judge(measures, self.limits)
        defect = defect_score(measures, self.limits)
        return QualityAssessment(verdict, reasons, measures["psnr_db"], defect, measures)

    def measure(self, rgb: NDArray[np.uint8]) -> dict[str, float]:
        """Every measure that the limits may name."""
        measures = measure(rgb)
        measures["psnr_db"] = reconstruction_psnr_db(self._network, rgb, self._device)
        measures["strangeness"] = strangeness(measures)
        measures |= kinds(self._scene, rgb, self._device)
        return measures
