"""What rules want done with a study: how long to wait, how urgent it is, where its results go. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ROUTINE = 0
HIGH = 1


@dataclass(frozen=True, slots=True)
class Handling:
    """What the rule of one object, or those of all pictures of a revision, want for the study.

    `routes` names each destination with the kinds of result that it gets. `retry_hours` is how long a
    delivery is tried again; None: as the destination says.
    """

    quiet_seconds: float
    priority: int = ROUTINE
    routes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    retry_hours: float | None = None


def together(one: Handling, other: Handling) -> Handling:
    """Return what serves both, whichever came first: the longer wait, the higher urgency, every route."""
    names = sorted({*one.routes, *other.routes})
    return Handling(
        quiet_seconds=max(one.quiet_seconds, other.quiet_seconds),
        priority=max(one.priority, other.priority),
        routes={name: _kinds(one.routes.get(name, ()), other.routes.get(name, ())) for name in names},
        retry_hours=_longer(one.retry_hours, other.retry_hours),
    )


def _longer(one: float | None, other: float | None) -> float | None:
    return max((each for each in (one, other) if each is not None), default=None)


def _kinds(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*one, *other}))
