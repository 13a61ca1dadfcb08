"""The table of moves: what it allows, and what it never does."""

from __future__ import annotations

from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_db.stages import (
    ALLOWED_MOVES,
    HOLDABLE,
    JOB_MOVES,
    MOVES,
    REVIVALS,
    IllegalMove,
    JobState,
    Stage,
    check_move,
    check_revival,
)

PAIRS = [(old, new) for states in MOVES for old in states for new in states]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_a_move_passes_exactly_where_the_table_has_it(old: StrEnum, new: StrEnum) -> None:
    for table, check in ((MOVES, check_move), (REVIVALS, check_revival)):
        if new in table[type(old)].get(old, ()):
            check(old, new)
        else:
            with pytest.raises(IllegalMove):
                check(old, new)


def test_every_table_has_a_row_for_every_state_and_the_given_up_have_a_way_back() -> None:
    assert all(set(table) == set(states) for states, table in MOVES.items())
    given_up = {old for table in REVIVALS.values() for old in table}
    assert {str(each) for each in given_up} >= {"failed", "dead"}
    assert JobState.DISCARDED in JOB_MOVES[JobState.DEAD]


@given(st.data())
def test_no_way_leads_back_to_an_earlier_stage(data: st.DataObject) -> None:
    stage, seen = Stage.RECEIVING, [Stage.RECEIVING]
    while ALLOWED_MOVES[stage]:
        stage = data.draw(st.sampled_from(sorted(ALLOWED_MOVES[stage])))
        assert stage not in seen
        seen.append(stage)
    assert stage in (Stage.COMPLETE, Stage.CONFLICT, Stage.DISCARDED)


def test_a_hold_stops_all_but_what_is_over() -> None:
    assert set(Stage) - HOLDABLE == {Stage.COMPLETE, Stage.CONFLICT, Stage.DISCARDED}


def test_nothing_is_delivered_that_was_not_analysed() -> None:
    assert [old for old in Stage if Stage.DELIVERING in ALLOWED_MOVES[old]] == [Stage.ANALYSING]
