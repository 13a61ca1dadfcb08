"""Which lesion of an earlier visit is it? By place and appearance, one to one, or none rather than a guess.

A lesion is matched where it is like one known lesion, by at least `Bounds.likeness`, and clearly less like
every other: by at least `Bounds.margin`. What two known lesions could be is left unmatched, and so is a known
lesion that two lesions of one picture could be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cds_plugin.priors.known import KnownLesion, SeenLesion, tracks


@dataclass(frozen=True, slots=True)
class Bounds:
    """From which likeness on, and with which distance to the next best, two pictures show one lesion."""

    likeness: float
    margin: float


@dataclass(frozen=True, slots=True)
class Match:
    """A lesion's earlier self: the latest observation of its track, and how alike they are (-1 to 1)."""

    prior: KnownLesion
    likeness: float


def matched(seen: Sequence[SeenLesion], known: Sequence[KnownLesion], bounds: Bounds) -> dict[int, Match]:
    """Return the match of each lesion of one picture that has one, by its number.

    The same in every order of `seen` and `known`.
    """
    candidates = tracks(known)
    table = [[track.likeness(lesion) for track in candidates] for lesion in seen]
    return {
        lesion.number: Match(candidates[column].latest, likeness)
        for row, lesion in enumerate(seen)
        for column, likeness in [_best(table[row])]
        if column is not None
        and likeness >= bounds.likeness
        and _stands_out(likeness, table[row], column, bounds.margin)
        and _stands_out(likeness, [each[column] for each in table], row, bounds.margin)
    }


def _best(likenesses: Sequence[float | None]) -> tuple[int | None, float]:
    """Return the place and value of the largest; (None, -1) where all are None."""
    places = [(value, -place) for place, value in enumerate(likenesses) if value is not None]
    if not places:
        return None, -1.0
    value, place = max(places)
    return -place, value


def _stands_out(value: float, among: Sequence[float | None], own: int, margin: float) -> bool:
    """Return whether every other of `among` is smaller than `value` by `margin` at least."""
    return all(other is None or value - other >= margin for place, other in enumerate(among) if place != own)
