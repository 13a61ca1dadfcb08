"""Losses for classes of very different size, each as it was published. Labels are columns of CLASSES."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

LossName = Literal["cross_entropy", "weighted", "focal", "logit_adjusted"]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

FOCUS = 2.0
"""Exponent of the focal loss: 2, as in its paper (Lin et al., ICCV 2017)."""


def class_loss(name: LossName, counts: NDArray[np.intp], smoothing: float = 0.1) -> Loss:
    """The loss `name` of logits (N, C) and labels (N,); `counts` (C,) are the training side's pictures."""
    known = torch.from_numpy(np.maximum(counts, 1).astype(np.float32))
    match name:
        case "cross_entropy":
            return nn.CrossEntropyLoss(label_smoothing=smoothing)
        case "weighted":
            return nn.CrossEntropyLoss(known.sum() / (len(known) * known), label_smoothing=smoothing)
        case "focal":
            return FocalLoss(smoothing)
        case "logit_adjusted":
            return LogitAdjustedLoss(known / known.sum(), smoothing)


class FocalLoss(nn.Module):
    """Cross-entropy that pays less for what is already right: times (1 - p) to the FOCUS."""

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self._smoothing = smoothing

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean over the batch."""
        entropy = nn.functional.cross_entropy(
            logits, labels, reduction="none", label_smoothing=self._smoothing
        )
        right = logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
        return ((1 - right) ** FOCUS * entropy).mean()


class LogitAdjustedLoss(nn.Module):
    """Cross-entropy of logits raised by the log of their class's share (Menon et al., ICLR 2021, tau = 1)."""

    def __init__(self, shares: torch.Tensor, smoothing: float) -> None:
        super().__init__()
        self.register_buffer("_raise", shares.log())
        self._smoothing = smoothing

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean over the batch."""
        raised = logits + self.get_buffer("_raise").to(logits.device)
        return nn.functional.cross_entropy(raised, labels, label_smoothing=self._smoothing)
