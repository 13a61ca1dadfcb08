"""Sections and tables in Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Section:
    """A heading of `level` (2 for a chapter), its number and title, and the paragraphs below it."""

    number: str
    title: str
    paragraphs: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """Return number and title."""
        return f"{self.number} {self.title}"

    @property
    def level(self) -> int:
        """Return the depth of the heading: chapters stand below the title of the page."""
        return 2 + self.number.count(".")

    def text(self) -> str:
        """Return the section in Markdown."""
        return "\n\n".join([f"{'#' * self.level} {self.heading}", *self.paragraphs])


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; a bar inside a cell is escaped."""
    lines = [_row(head), _row(["---"] * len(head)), *map(_row, rows)]
    return "\n".join(lines)


def bullets(lines: Iterable[str]) -> str:
    """Return a list."""
    return "\n".join(f"- {line}" for line in lines)


def contents(sections: Sequence[Section]) -> str:
    """Return the numbered headings, each a link to its section."""
    return "\n".join(
        f"{'  ' * (each.level - 2)}- [{each.heading}](#{anchor(each.heading)})" for each in sections
    )


def anchor(heading: str) -> str:
    """Return the name under which a Markdown page can be entered at a heading."""
    kept = (letter for letter in heading.lower() if letter.isalnum() or letter in " -")
    return "".join(kept).replace(" ", "-")


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
