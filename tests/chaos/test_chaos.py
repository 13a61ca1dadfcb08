"""The short form of `make chaos`: some faults of most kinds against a whole installation."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaign import Plan, run_round

pytestmark = pytest.mark.slow

SHORT = (
    "listener killed",
    "worker killed",
    "deliverer killed",
    "sweeper frozen",
    "database killed",
    "broker killed",
    "broker flushed",
    "PACS away",
    "sender to listener: cut",
    "deliverer to PACS: held up",
    "ours to database: cut",
    "disk full",
    "clock stepped",
    "late picture",
    "altered duplicate",
    "own results returned",
)


def test_nothing_is_lost_and_nothing_comes_twice(tmp_path: Path, servers_installed: None) -> None:
    plan = Plan(
        seed=6,
        faults=14,
        kinds=SHORT,
        gap_seconds=1.2,
        longest_seconds=2.0,
        quiet_seconds=150.0,
        studies=3,
        wait_for=(),
    )
    outcome = run_round(tmp_path / "chaos", plan)
    assert outcome.verdict.problems == []
    assert len(outcome.faults) == plan.faults
    assert all(fault.recovered is not None for fault in outcome.faults if fault.studies)
    assert outcome.verdict.counts["acknowledged"] >= 3
    assert outcome.verdict.counts["results"] >= 3 * outcome.verdict.counts["pictures"] - 2
