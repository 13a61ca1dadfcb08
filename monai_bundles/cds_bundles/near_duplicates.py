"""Pictures that look the same under different names: what identifiers alone do not show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cds_bundles.picture_files import Rgb, read_rgb
from cds_bundles.resize import resize_rgb

CORRELATION = 0.985
"""Two pictures whose normalised thumbnails correlate above this are taken for the same lesion."""
SIDE = 16
"""Pixels of a thumbnail's side."""
ROWS_AT_ONCE = 2048

Thumbnails = NDArray[np.float32]


def thumbnails(paths: Iterable[Path], read: Callable[[Path], Rgb] = read_rgb) -> Thumbnails:
    """(N, 768) float32, each row of mean zero and length one; `UnreadablePicture` for what can't be read."""
    rows = [_thumbnail(read(path)) for path in paths]
    return np.stack(rows) if rows else np.zeros((0, 3 * SIDE * SIDE), np.float32)


def _thumbnail(rgb: Rgb) -> Thumbnails:
    small = resize_rgb(rgb, SIDE, SIDE).astype(np.float32)
    flat = (small.reshape(-1, 3) - small.reshape(-1, 3).mean(axis=0)).ravel()
    return np.asarray(flat / (np.linalg.norm(flat) + 1e-6), np.float32)


def closest(ours: Thumbnails, theirs: Thumbnails) -> NDArray[np.float32]:
    """For each row of `ours` its highest correlation with any row of `theirs`."""
    parts = [(part @ theirs.T).max(axis=1) for part in _parts(ours)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def alike(rows: Thumbnails, correlation: float = CORRELATION) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i < j, of rows that correlate above `correlation`."""
    first = 0
    for part in _parts(rows):
        for i, j in np.argwhere(part @ rows.T > correlation):
            if first + i < j:
                yield int(first + i), int(j)
        first += len(part)


def _parts(rows: Thumbnails) -> Sequence[Thumbnails]:
    return [rows[first : first + ROWS_AT_ONCE] for first in range(0, len(rows), ROWS_AT_ONCE)]
