"""The page about viewers says what the configuration really has."""

from __future__ import annotations

from pathlib import Path

from cds_plugin.demo.ohif import DRAW_OUTLINES, SHOWN_AS

PAGE = Path(__file__).parents[2] / "docs" / "viewers.md"


def test_the_lines_that_a_site_copies_are_those_of_the_demonstration() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert f"```js\n{DRAW_OUTLINES}```" in page
    assert all(uid.decode() in page for uid in SHOWN_AS)
