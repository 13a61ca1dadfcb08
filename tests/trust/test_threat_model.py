"""SECURITY.md names tests that show what it claims: each is there, and each table names some."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
ADVERSARIES = re.findall(r"^### .*$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_every_test_that_it_names_is_there(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    assert name in {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}


def test_every_line_of_a_table_names_a_test() -> None:
    tables = [line for line in PAGE.splitlines() if line.startswith("| ") and "::" not in line]
    unshown = [
        line for line in tables if line.count("|") == 4 and "what stops it" not in line and "---" not in line
    ]
    assets = PAGE.partition("## What is worth protecting")[2].partition("## Who could do what")[0]
    assert [line for line in unshown if line not in assets] == []
    assert len(NAMED) > 30


@pytest.mark.parametrize("heading", ADVERSARIES)
def test_every_adversary_has_something_that_is_not_stopped(heading: str) -> None:
    """A page that stops everything would not be believed."""
    section = PAGE.partition(heading)[2].partition("\n### ")[0]
    assert "Not stopped" in section or "on purpose" in section


def test_pages_that_it_refers_to_are_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / target).is_file(), target
