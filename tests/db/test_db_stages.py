"""The table of moves: what it allows, and what it never does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_db.stages import ALLOWED_MOVES, HOLDABLE, IllegalMove, Stage, check_move


@given(st.sampled_from(Stage), st.sampled_from(Stage))
def test_a_move_passes_exactly_where_the_table_has_it(old: Stage, new: Stage) -> None:
    if new in ALLOWED_MOVES[old]:
        check_move(old, new)
    else:
        with pytest.raises(IllegalMove):
            check_move(old, new)


@given(st.data())
def test_no_way_leads_back_to_an_earlier_stage(data: st.DataObject) -> None:
    stage, seen = Stage.RECEIVING, [Stage.RECEIVING]
    while ALLOWED_MOVES[stage]:
        stage = data.draw(st.sampled_from(sorted(ALLOWED_MOVES[stage])))
        assert stage not in seen
        seen.append(stage)
    assert stage in (Stage.COMPLETE, Stage.CONFLICT)


def test_every_stage_has_its_row_and_a_hold_stops_all_but_the_complete_and_the_held() -> None:
    assert set(ALLOWED_MOVES) == set(Stage)
    assert set(Stage) - HOLDABLE == {Stage.COMPLETE, Stage.CONFLICT}


def test_nothing_is_delivered_that_was_not_analysed() -> None:
    assert [old for old in Stage if Stage.DELIVERING in ALLOWED_MOVES[old]] == [Stage.ANALYSING]
