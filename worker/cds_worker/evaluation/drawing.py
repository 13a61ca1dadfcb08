"""How every plot is drawn: as SVG of one look; needs matplotlib."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

SIZE = (5.6, 4.2)
WIDE = 7.2
"""Inches, as SIZE."""
ROW_INCHES = 0.26
MARGIN_INCHES = 1.2
"""A wide plot of rows is as high as its rows and this."""
BLUE, ORANGE, GREEN, RED, GREY = "#1f5f8b", "#c8692a", "#3a7d44", "#a63d40", "#8a8a8a"
STYLE: Any = {
    "svg.hashsalt": "cds-plugin",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
}
"""The same document gives the same bytes; letters stay letters, for screen readers and search."""

Document = Mapping[str, Any]
Draw = Callable[[Axes], None]


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot: file name without ending, what it shows in words, and its bytes."""

    name: str
    title: str
    caption: str
    svg: bytes


def drawn(name: str, title: str, caption: str, draw: Draw, size: tuple[float, float] = SIZE) -> Plot:
    """Return the plot that `draw` draws; `size` in inches."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        stream = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return Plot(name, title, caption, stream.getvalue())


def unit_square(axes: Axes, x: str, y: str) -> None:
    """Show 0 to 1 on both axes, labelled `x` and `y`."""
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.03)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def tall(rows: float) -> tuple[float, float]:
    """Return the size of a wide plot with so many rows."""
    return WIDE, MARGIN_INCHES + ROW_INCHES * rows
