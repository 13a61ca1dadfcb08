"""Whose job is next: the urgent first, senders in turn, and nobody waits for ever. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

AGEING = timedelta(minutes=10)
"""Who has waited this long is as urgent as the next level: a stream of urgent studies can't starve a routine
one, which then takes its turn among their senders."""
MEMORY = timedelta(hours=1)
"""How far back a sender's last turn counts; one that had none since then is next."""
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The oldest waiting job of one sender at one priority."""

    job_id: int
    sender: str
    priority: int
    since: datetime


def next_in_turn(
    waiting: Iterable[Waiting], served_at: Mapping[str, datetime], now: datetime
) -> Waiting | None:
    """Return the job to do next, None where nothing waits; `served_at` says when each sender's last began.

    The most urgent first, where waiting for AGEING raises by one level up to the highest there is; among
    equals the sender whose last turn is longest ago, then the oldest job.
    """
    candidates = list(waiting)
    if not candidates:
        return None
    highest = max(each.priority for each in candidates)

    def order(each: Waiting) -> tuple[int, datetime, datetime, int]:
        level = min(each.priority + (now - each.since) // AGEING, highest)
        return -level, served_at.get(each.sender, NEVER), each.since, each.job_id

    return min(candidates, key=order)
