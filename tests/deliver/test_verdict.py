"""What an answer means: nothing that was taken is sent again, nothing refused is sent for weeks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_plugin.deliver.verdict import Verdict, verdict_of


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0x0111])
def test_taken(status: int) -> None:
    assert verdict_of(status) is Verdict.STORED


@pytest.mark.parametrize("status", [0xA700, 0xA701, 0xA7FF, 0x0110, 0x0213, 0xFE00])
def test_not_now(status: int) -> None:
    assert verdict_of(status) is Verdict.LATER


@pytest.mark.parametrize("status", [0xA900, 0xA8FF, 0xC000, 0xCFFF, 0x0122, 0x0124, 0x0117, 0xC122])
def test_never(status: int) -> None:
    assert verdict_of(status) is Verdict.REFUSED


@given(st.integers(0, 0xFFFF))
def test_every_status_means_something_and_only_known_ones_that_it_was_taken(status: int) -> None:
    stored = verdict_of(status) is Verdict.STORED
    assert stored == (status in (0x0000, 0xB000, 0xB006, 0xB007, 0x0111))
