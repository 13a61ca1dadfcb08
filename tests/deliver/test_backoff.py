"""Waits double, stay below their longest, and jitter only shortens them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_plugin.deliver.backoff import AWAY, REFUSED

attempts = st.integers(1, 100_000)


@given(attempts, st.floats(0, 1))
def test_waits_stay_in_their_bounds(attempt: int, jitter: float) -> None:
    for backoff in (AWAY, REFUSED):
        wait = backoff.wait(attempt, jitter)
        assert backoff.first / 2 <= wait <= backoff.longest
        assert wait <= backoff.wait(attempt + 1, 0)


def test_a_pacs_that_is_back_waits_at_most_a_minute() -> None:
    assert [AWAY.wait(attempt, 0).total_seconds() for attempt in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_refusal_is_tried_again_more_slowly() -> None:
    assert all(REFUSED.wait(attempt, 1) > AWAY.wait(attempt, 1) for attempt in range(1, 100))


def test_attempts_count_from_one() -> None:
    with pytest.raises(ValueError, match="attempt 0"):
        AWAY.wait(0, 0)
