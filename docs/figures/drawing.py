"""Helpers to draw figures: stacks of channels, arrows, and saving."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Polygon

from sepconv.bench.theme import LINE, MUTED, STYLE, themed

__all__ = ["PLANE", "Cell", "arrow", "blank", "save", "stack", "window"]

PLANE = "#060606"  # the page's own colour, in `theme`
_RIGHT, _UP, _DOWN = 0.13, 0.07, 0.2  # steps: of a column right and up, of a row down

#: Row, column and colour of a filled cell.
Cell = tuple[int, int, str]


def window(row: int, column: int, size: int, colour: str) -> list[Cell]:
    """The cells of a square window."""
    return [(row + i, column + j, colour) for i in range(size) for j in range(size)]


def stack(
    axes: Any, x: float, y: float, planes: list[list[Cell]], cells: int, step: float = 0.62
) -> float:
    """Draws channels one behind the other; returns where the last one ends.

    Args:
        axes: where to draw.
        x: the left end of the first plane.
        y: the height of the middle of the stack.
        planes: the filled cells of every plane.
        cells: rows and columns of a plane.
        step: from a plane to the next.
    """
    top = y + (cells * _DOWN - cells * _UP) / 2
    for index in reversed(range(len(planes))):
        left = x + index * step

        def corner(row: float, column: float, left: float = left) -> tuple[float, float]:
            return left + column * _RIGHT, top + column * _UP - row * _DOWN

        def cell(row: float, column: float, size: float, at: Callable[..., Any] = corner) -> Any:
            return [
                at(row, column),
                at(row, column + size),
                at(row + size, column + size),
                at(row + size, column),
            ]

        axes.add_patch(Polygon(cell(0, 0, cells), facecolor=PLANE, edgecolor="none"))
        for row, column, colour in planes[index]:
            axes.add_patch(Polygon(cell(row, column, 1), facecolor=colour, edgecolor="none"))
        for k in range(1, cells):
            for ends in ((corner(k, 0), corner(k, cells)), (corner(0, k), corner(cells, k))):
                axes.plot(*zip(*ends, strict=True), color=LINE, linewidth=0.6)
        outline = Polygon(cell(0, 0, cells), facecolor="none", edgecolor=MUTED, linewidth=1)
        axes.add_patch(outline)
    return x + (len(planes) - 1) * step + cells * _RIGHT


def arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], **style: Any) -> None:
    """An arrow from one point to another."""
    style = {"color": MUTED, "linewidth": 1.4, **style}
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, **style))


def blank(figure: Any, width: float, height: float, places: Iterable[float] = (0, 0, 1, 1)) -> Any:
    """Axes without lines or ticks, `width` by `height` units."""
    axes = figure.add_axes(tuple(places))
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return axes


def save(file: str, label: str, size: tuple[float, float], draw: Callable[[Any], None]) -> None:
    """Draws a figure and writes the SVG beside the script.

    Args:
        file: the script's own name; the SVG takes its stem.
        label: a description for screen readers.
        size: in inches.
        draw: draws on the figure.
    """
    path = Path(file).with_suffix(".svg")
    with mpl.rc_context({**STYLE, "figure.facecolor": "none", "axes.facecolor": "none"}):
        figure = Figure(figsize=size)
        draw(figure)
        path.write_text(themed(figure, label) + "\n", encoding="utf-8")
