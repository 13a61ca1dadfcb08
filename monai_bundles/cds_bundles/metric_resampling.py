"""Figures with 95 % intervals from lesions drawn with replacement, all draws of a measure at once.

A measure is a function of weights: how often each row (picture) was drawn. The figure itself is the measure
of weights of one. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Places = NDArray[np.intp]

ROUNDS = 2000
SEED = 0
TAIL = 0.025
CELLS_AT_ONCE = 2_000_000
"""Weights held in memory at a time: 16 MB, whatever the number of pictures."""
DECIMALS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """One figure as a function of weights (R, N); `amounts` (N,) says how many units each row brings to n."""

    compute: Callable[[Floats], Floats]
    """From (R, N) weights to (R,) values; NaN where a draw holds none of what the figure needs."""
    amounts: Floats
    unit: str = "pictures"
    """What n counts."""
    share: bool = False
    """Whether it is a share of yes among yes and no: bounded even where every case was the same."""
    pair: tuple[Bools, Bools] | None = None
    """For a share of pairs (an AUC): the rows (N,) of either kind. Lesions of the rarer kind make as many
    pairs that have nothing in common; these bound it where every pair agreed."""
    centred: bool = False
    """Whether drawing again pushes it up as the sample did (an error that can't be negative), so that the
    interval is mirrored around the value (the basic bootstrap; Davison and Hinkley, 1997, 5.2), which takes
    back a part of that; its upper end is never below the value itself."""

    def of_all(self) -> float:
        """Return the value of all rows, each once; NaN where there is nothing."""
        return float(self.compute(np.ones((1, len(self.amounts))))[0])


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval, what it rests on, and of which split; None where there is nothing."""

    value: float | None
    interval_95: tuple[float, float] | None
    n: int
    unit: str
    lesion_ids: int
    """How many different ones: the intervals draw these."""
    split: str

    def as_json(self) -> dict[str, object]:
        """Return the fields as figures.json holds them, to four decimals."""
        bounds = self.interval_95
        return {
            "value": None if self.value is None else round(self.value, DECIMALS),
            "interval_95": None if bounds is None else [round(each, DECIMALS) for each in bounds],
            "n": self.n,
            "unit": self.unit,
            "lesion_ids": self.lesion_ids,
            "split": self.split,
        }


def estimates(
    measures: Mapping[str, Measure], lesion_ids: Sequence[str], split: str, rounds: int = ROUNDS
) -> dict[str, Estimate]:
    """Return every measure of the rows with its interval; the same draws of lesions serve all."""
    lesion_of = np.unique(np.asarray(lesion_ids), return_inverse=True)[1]
    parts: dict[str, list[Floats]] = {name: [] for name in measures}
    for weights in lesion_weights(lesion_of, rounds):
        for name, measure in measures.items():
            parts[name].append(measure.compute(weights))
    return {
        name: _estimate(measure, np.concatenate(parts[name]), lesion_of, split)
        for name, measure in measures.items()
    }


def lesion_weights(lesion_of: Places, rounds: int = ROUNDS, seed: int = SEED) -> Iterator[Floats]:
    """Yield (R, N) weights, `rounds` rows in all: how often the lesion of each row was drawn."""
    lesions = int(lesion_of.max()) + 1
    at_once = max(1, CELLS_AT_ONCE // len(lesion_of))
    rng = np.random.default_rng(seed)
    for first in range(0, rounds, at_once):
        count = min(at_once, rounds - first)
        drawn = rng.integers(lesions, size=(count, lesions)) + np.arange(count)[:, None] * lesions
        times = np.bincount(drawn.ravel(), minlength=count * lesions).reshape(count, lesions)
        yield times[:, lesion_of].astype(np.float64)


def _estimate(measure: Measure, draws: Floats, lesion_of: Places, split: str) -> Estimate:
    value = measure.of_all()
    lesions = _count(lesion_of[measure.amounts > 0])
    known = draws[~np.isnan(draws)]
    trials = lesions if measure.pair is None else min(_count(lesion_of[each]) for each in measure.pair)
    bounds = None if np.isnan(value) or not known.size else _interval(measure, value, known, trials)
    return Estimate(
        value=None if np.isnan(value) else value,
        interval_95=bounds,
        n=round(float(measure.amounts.sum())),
        unit=measure.unit,
        lesion_ids=lesions,
        split=split,
    )


def _count(lesion_of: Places) -> int:
    return len(np.unique(lesion_of))


def _interval(measure: Measure, value: float, draws: Floats, trials: int) -> tuple[float, float] | None:
    """Return the bounds; None where drawing shows no width: that is want of cases, not certainty."""
    low, high = (float(each) for each in np.quantile(draws, (TAIL, 1 - TAIL)))
    if measure.share and value in (0.0, 1.0):
        return _exact(value, trials)
    if trials < 2 or low == high:
        return None
    return (max(0.0, 2 * value - high), max(value, 2 * value - low)) if measure.centred else (low, high)


def _exact(value: float, trials: int) -> tuple[float, float]:
    """Return the bounds of Clopper and Pearson where all or none agree: drawing again shows no width."""
    bound = TAIL ** (1 / trials)
    return (bound, 1.0) if value else (0.0, 1 - bound)
