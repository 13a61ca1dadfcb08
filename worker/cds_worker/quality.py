"""First stage: is the picture good enough to be analysed?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cds_plugin.errors import CdsError
from cds_plugin.study import Quality, Rgb, Verdict


class Assessment(Protocol):
    """What the quality bundle's predictor answers."""

    @property
    def verdict(self) -> str:
        """Return "diagnostic", "limited" or "non_diagnostic"."""

    @property
    def reasons(self) -> Sequence[str]:
        """Return plain sentences; empty only for a diagnostic picture."""

    @property
    def psnr_db(self) -> float | None:
        """Return the PSNR of the autoencoder's reconstruction in dB."""

    @property
    def defect(self) -> float | None:
        """Return the worst defect: over 0.5 doubtful, over 1 useless; None for want of such a scale."""


class QualityPredictor(Protocol):
    """The `predictor` of dermoscopy_quality_gate."""

    def __call__(self, rgb: Rgb) -> Assessment:
        """Return the assessment of `rgb` (H, W, 3) uint8 sRGB."""


def assess(predictor: QualityPredictor, rgb: Rgb) -> Quality:
    """Return the gate's verdict on `rgb`."""
    answer = predictor(rgb)
    psnr = None if answer.psnr_db is None else float(answer.psnr_db)
    defect = None if answer.defect is None else float(answer.defect)
    return Quality(Verdict(answer.verdict), tuple(str(reason) for reason in answer.reasons), psnr, defect)


def not_decoded(refusal: CdsError) -> Quality:
    """Return the verdict on a picture that could not be decoded: non-diagnostic, with the refusal's words."""
    return Quality(Verdict.NON_DIAGNOSTIC, (refusal.message,), None)
