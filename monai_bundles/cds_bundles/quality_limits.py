"""From measures to a verdict: pure rules over a table of limits that a site can read and change. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

Verdict = Literal["diagnostic", "limited", "non_diagnostic"]


class Side(Enum):
    """On which side of its limits a measure is bad."""

    BELOW = "below"
    ABOVE = "above"


@dataclass(frozen=True, slots=True)
class Limit:
    """What a measure must keep to: beyond `limited` a picture is doubtful, then `non_diagnostic`, useless."""

    measure: str
    side: Side
    limited: float
    non_diagnostic: float | None
    """None where this measure alone never refuses a picture."""
    reason: str
    """What is wrong and what the photographer can do about it."""
    usual: float | None = None
    """What nearly all good pictures keep to; None where nobody has looked. Only the score of a picture below
    `limited` hangs on it."""

    def __post_init__(self) -> None:
        if self.non_diagnostic is not None and not self._beyond(self.non_diagnostic, self.limited):
            raise ValueError(f"{self.measure}: non_diagnostic must lie {self.side.value} limited")
        if self.usual is not None and not self._beyond(self.limited, self.usual):
            raise ValueError(f"{self.measure}: limited must lie {self.side.value} usual")

    def verdict(self, value: float) -> Verdict:
        """What `value` alone would lead to."""
        if self.non_diagnostic is not None and self._beyond(value, self.non_diagnostic):
            return "non_diagnostic"
        return "limited" if self._beyond(value, self.limited) else "diagnostic"

    def defect(self, value: float) -> float:
        """0 at `usual`, 0.5 at `limited`, 1 at `non_diagnostic`; linear in between, before and behind.

        Where one of the two outer bounds is missing the other gives the slope; a picture that is never
        refused stays below 1. Minus infinity where both are missing.
        """
        beyond = self._beyond(value, self.limited)
        if self.usual is not None and (not beyond or self.non_diagnostic is None):
            steps = 0.5 * (value - self.limited) / (self.limited - self.usual)
            return 0.5 + (steps if not beyond else 0.5 * steps / (0.5 + steps))
        if self.non_diagnostic is not None:
            return 0.5 + 0.5 * (value - self.limited) / (self.non_diagnostic - self.limited)
        return float("-inf")

    def _beyond(self, value: float, bound: float) -> bool:
        return value < bound if self.side is Side.BELOW else value > bound


def read_limits(rows: Iterable[Mapping[str, Any]]) -> tuple[Limit, ...]:
    """The limits of a configuration; raises `ValueError` or `TypeError` for a row that is not one."""
    return tuple(Limit(**{**row, "side": Side(row["side"])}) for row in rows)


def strangeness(measures: Mapping[str, float]) -> float:
    """How little a picture resembles skin seen through a dermoscope: 0 for most such pictures.

    Adds up hard edges, pixels of a hue that skin has not, a reconstruction below 25 dB, and glaring colours.
    Each of them alone is found in good pictures too (hair, pen marks, rulers, a green cast).
    """
    return (
        20.0 * min(measures["edge_share"], 0.04)
        + (1.0 - measures["skin_share"])
        + 0.1 * max(0.0, 25.0 - measures["psnr_db"])
        + 0.02 * max(0.0, measures["chroma"] - 45.0)
    )


def judge(measures: Mapping[str, float], limits: Sequence[Limit]) -> tuple[Verdict, tuple[str, ...]]:
    """The worst verdict of all `limits`, and the reasons: refusing ones first, in the order of the table."""
    found = [(limit.verdict(measures[limit.measure]), limit.reason) for limit in limits]
    refusing = tuple(reason for verdict, reason in found if verdict == "non_diagnostic")
    limiting = tuple(reason for verdict, reason in found if verdict == "limited")
    if refusing:
        return "non_diagnostic", refusing + limiting
    return ("limited", limiting) if limiting else ("diagnostic", ())


def defect_score(measures: Mapping[str, float], limits: Sequence[Limit]) -> float | None:
    """One number for a whole picture, the worst defect: over 0.5 it is doubtful, over 1 useless.

    None where no row of `limits` has a scale.
    """
    worst = max((limit.defect(measures[limit.measure]) for limit in limits), default=float("-inf"))
    return worst if worst > float("-inf") else None
