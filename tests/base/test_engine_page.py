"""The page about the engine is what the code's tables say."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from cds_db.stages import MOVES
from cds_db.waits import WAITS
from cds_plugin.cli import build
from cds_plugin.enginepage import BEGINNINGS, SUBJECTS, page

PAGE = Path(__file__).parents[2] / "docs" / "engine.md"
WAITING = {"revision receiving", "revision queued", "revision analysing", "revision delivering"}


def test_the_page_is_not_stale_and_the_command_prints_it() -> None:
    assert PAGE.read_text() == page(), "run: cds-plugin jobs states --out docs/engine.md"
    assert CliRunner().invoke(build("jobs"), ["jobs", "states"]).output == page()


def test_every_table_has_its_diagram_and_every_state_that_is_not_over_its_limit() -> None:
    assert set(SUBJECTS) == set(BEGINNINGS) == set(MOVES)
    limited = {f"{wait.subject} {wait.state}" for wait in WAITS if wait.limits}
    for states, table in MOVES.items():
        kind = next(str(wait.subject) for wait in WAITS if isinstance(wait.state, states))
        leads_on = {f"{kind} {state}" for state, following in table.items() if following}
        done = {"question discarded", "question failed", "commitment failed", "revision failed"}
        assert leads_on - limited <= done
    assert limited >= WAITING
