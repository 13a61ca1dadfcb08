"""The last layer trained again on embeddings whose rare classes were filled up, as the source paper does.

Chawla et al., SMOTE, JAIR 16:321 (2002): new rows lie between a rare row and a neighbour of its class.
"""

from __future__ import annotations

import numpy as np
import torch
from imblearn.over_sampling import SMOTE, RandomOverSampler
from numpy.typing import NDArray
from torch import nn

Floats = NDArray[np.float32]
Places = NDArray[np.intp]

NEIGHBOURS = 5
EPOCHS = 10
BATCH = 256
RATE = 1e-3
WEIGHT_DECAY = 0.03
LABEL_SMOOTHING = 0.1


def filled_up(features: Floats, labels: Places, seed: int) -> tuple[Floats, Places]:
    """`features` (N, D) and `labels` (N,) with as many rows of every class as of the largest, by SMOTE.

    Classes of too few rows to have neighbours are repeated instead.
    """
    smallest = int(np.bincount(labels)[np.unique(labels)].min())
    neighbours = min(NEIGHBOURS, smallest - 1)
    sampler = SMOTE(k_neighbors=neighbours, random_state=seed) if neighbours else None
    rows, classes = (sampler or RandomOverSampler(random_state=seed)).fit_resample(features, labels)
    return np.asarray(rows, np.float32), np.asarray(classes, np.intp)


def repeated(features: Floats, labels: Places, seed: int) -> tuple[Floats, Places]:
    """The same numbers of rows by repeating the rare ones: what is left of SMOTE without its new rows."""
    rows, classes = RandomOverSampler(random_state=seed).fit_resample(features, labels)
    return np.asarray(rows, np.float32), np.asarray(classes, np.intp)


def retrained(head: nn.Linear, features: Floats, labels: Places, seed: int) -> nn.Linear:
    """A copy of `head` trained further on `features` (N, D) and `labels` (N,)."""
    generator = torch.Generator().manual_seed(seed)
    own = nn.Linear(head.in_features, head.out_features)
    own.load_state_dict(head.state_dict())
    optimizer = torch.optim.AdamW(own.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    rows, truth = torch.from_numpy(features), torch.from_numpy(labels)
    for _ in range(EPOCHS):
        for places in torch.split(torch.randperm(len(rows), generator=generator), BATCH):
            loss = nn.functional.cross_entropy(
                own(rows[places]), truth[places], label_smoothing=LABEL_SMOOTHING
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return own.eval()
