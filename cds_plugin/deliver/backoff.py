"""When a delivery that failed is tried again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double from `first` to `longest`."""

    first: timedelta
    longest: timedelta

    def wait(self, attempts: int, jitter: float) -> timedelta:
        """Return the wait after attempt number `attempts` (from 1); `jitter` 0-1 takes off up to half of it.

        Jitter keeps the deliveries to a PACS that comes back from all arriving in one moment.
        """
        if attempts < 1 or not 0 <= jitter <= 1:
            raise ValueError(f"attempt {attempts}, jitter {jitter}")
        doubled: timedelta = self.first * 2 ** min(attempts - 1, 30)
        return min(doubled, self.longest) * (1 - jitter / 2)


AWAY = Backoff(first=timedelta(seconds=1), longest=timedelta(seconds=60))
"""The peer cannot be reached: it is back as soon as somebody restarted it."""
REFUSED = Backoff(first=timedelta(seconds=30), longest=timedelta(minutes=15))
"""The peer answered that it cannot now, or that we may not: somebody has to change something first."""
