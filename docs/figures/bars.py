"""Bars of measurements: ratios of times, and times side by side.

They are narrow, so that their text can be read on a telephone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sepconv.bench.theme import BLUE, MUTED, ORANGE, TEXT

__all__ = ["WIDTH", "heading", "panels", "ratios", "times"]

#: The width of a figure, in inches.
WIDTH = 4.7
_ROW, _HEAD = 0.27, 0.42  # the heights of a bar and of a panel's title, in inches


def panels(figure: Any, counts: Sequence[int], left: float, foot: float) -> list[Any]:
    """Axes below each other, as high as the bars in them.

    Args:
        figure: where to draw, of the width `WIDTH`.
        counts: the bars of each.
        left: inches for the bars' names.
        foot: inches below the last.

    Returns:
        The axes; the figure is given the height that they take.
    """
    height = sum(counts) * _ROW + len(counts) * _HEAD + foot
    figure.set_size_inches(WIDTH, height)
    made, top = [], height
    for count in counts:
        top -= _HEAD + count * _ROW
        place = (left / WIDTH, top / height, 1 - (left + 0.12) / WIDTH, count * _ROW / height)
        axes = figure.add_axes(place)
        axes.set_ylim(count - 0.5, -0.5)
        axes.tick_params(length=0, labelsize=10)
        axes.grid(visible=False, axis="y")
        made.append(axes)
    return made


def names(axes: Any, words: Sequence[str]) -> None:
    """Names the bars."""
    axes.set_yticks(range(len(words)), words)
    axes.tick_params(axis="y", labelcolor=TEXT)


def note(axes: Any, x: float, place: int, text: str, left: bool = False) -> None:
    """A bar's value at its end."""
    axes.annotate(
        text,
        (x, place),
        (-4 if left else 4, 0),
        textcoords="offset points",
        fontsize=9.5,
        va="center",
        ha="right" if left else "left",
    )


def ratios(axes: Any, group: dict[str, float], limits: tuple[float, float], digits: int) -> None:
    """Bars from 1, on a logarithmic scale: to the right, blue, where sepconv is ahead, else orange.

    Args:
        axes: one of `panels`.
        group: the ratios, by name.
        limits: of the scale.
        digits: after the decimal point.
    """
    names(axes, list(group))
    axes.set(xscale="log", xlim=limits)
    for place, ratio in enumerate(group.values()):
        ahead = ratio >= 1
        axes.barh(place, ratio - 1, 0.68, left=1, color=BLUE if ahead else ORANGE, zorder=2)
        note(axes, ratio, place, f"{ratio:.{digits}f}x", left=not ahead)
    axes.axvline(1, color=TEXT, linewidth=1.2, zorder=3)
    ticks = [t for t in (0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100) if limits[0] < t < limits[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def heading(axes: Any, title: str, left: float) -> None:
    """A panel's title, which begins where the figure does."""
    axes.set_title(title, fontsize=10.5, x=-left / (WIDTH - left - 0.12), ha="left")


def times(axes: Any, group: dict[str, tuple[float, str, str]], high: float) -> None:
    """Bars of times: by name, the milliseconds, the text at the bar's end, and its colour."""
    names(axes, list(group))
    axes.set_xlim(0, high)
    for place, (milliseconds, text, colour) in enumerate(group.values()):
        filled = colour != MUTED
        axes.barh(
            place,
            milliseconds,
            0.68,
            color=colour if filled else "none",
            edgecolor=colour,
            linewidth=1,
            zorder=2,
        )
        note(axes, milliseconds, place, text)
