"""Draws the backward pass: what is kept from the forward pass, and what is computed again."""

from __future__ import annotations

from typing import Any

from drawing import arrow, blank, save

from sepconv.bench.theme import BLUE, GREEN, MUTED, ORANGE

#: The colours of kept, recomputed and returned tensors.
KEPT, AGAIN, RESULT = MUTED, ORANGE, GREEN


def box(axes: Any, x: float, y: float, text: str, colour: str, dashed: bool = False) -> None:
    """A tensor."""
    style = {"boxstyle": "round,pad=0.45", "facecolor": "#060606", "edgecolor": colour}
    axes.text(
        x,
        y,
        text,
        fontsize=10,
        ha="center",
        va="center",
        zorder=4,
        bbox={**style, "linewidth": 1.6, "linestyle": "--" if dashed else "-"},
    )


def link(axes: Any, start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    """An arrow, labelled with the operation."""
    arrow(axes, start, end, color=BLUE, shrinkA=20, shrinkB=24)
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    axes.text(x, y + 0.22, text, fontsize=9, ha="center", color=BLUE, zorder=5)


def draw(figure: Any) -> None:
    """Both passes."""
    axes = blank(figure, 14, 6.4)
    axes.text(0.2, 6.0, "Forward", fontsize=13, weight="bold")
    box(axes, 1.6, 5.1, "input x", KEPT)
    box(axes, 6.2, 5.1, "depthwise tile", AGAIN, dashed=True)
    box(axes, 11.2, 5.1, "output y", KEPT)
    link(axes, (2.2, 5.1), (5.3, 5.1), "depthwise kernel")
    link(axes, (7.1, 5.1), (10.5, 5.1), "pointwise kernel")
    axes.text(6.2, 4.5, "thrown away", fontsize=9.5, color=MUTED, ha="center")

    axes.plot([0.2, 13.8], [4.15] * 2, color=MUTED, linewidth=0.5)
    axes.text(0.2, 3.7, "Backward", fontsize=13, weight="bold")
    box(axes, 1.6, 2.7, "input x", KEPT)
    box(axes, 6.2, 2.7, "depthwise tile,\ncomputed again", AGAIN, dashed=True)
    box(axes, 11.2, 2.7, "gradient of the\npointwise kernel", RESULT)
    box(axes, 1.6, 0.8, "output's\ngradient dy", KEPT)
    box(axes, 6.2, 0.8, "gradient of the\ndepthwise result", MUTED)
    box(axes, 11.2, 0.8, "gradients of the input and\nof the depthwise kernel", RESULT)
    link(axes, (2.2, 2.7), (5.3, 2.7), "depthwise kernel")
    link(axes, (7.1, 2.7), (10.2, 2.7), "× dy")
    link(axes, (2.3, 0.8), (5.2, 0.8), "pointwise kernel, turned")
    link(axes, (7.2, 0.8), (9.6, 0.8), "kernel; x")


if __name__ == "__main__":
    save(__file__, "What the backward pass computes, and from what", (10, 4.6), draw)
