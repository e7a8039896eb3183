"""Draws the data's path through the levels of memory: in two operations, and fused in tiles."""

from __future__ import annotations

from typing import Any

from drawing import arrow, blank, save

from sepconv.bench.theme import BLUE, GREEN, LINE, MUTED, ORANGE

LEVELS = {"memory": 4.2, "L2 cache": 3.1, "L1 cache": 2.0, "registers": 0.9}
MEMORY, _, L1, REGISTERS = LEVELS.values()


def path(axes: Any, points: list[tuple[float, float]], colour: str) -> None:
    """A line through the levels, ending in an arrow."""
    axes.plot(*zip(*points, strict=True), color=colour, linewidth=2.2, solid_capstyle="round")
    arrow(axes, points[-2], points[-1], color=colour, linewidth=2.2)


def box(axes: Any, x: float, y: float, text: str, colour: str) -> None:
    """An array at a level of memory."""
    axes.text(
        x,
        y,
        text,
        fontsize=9.5,
        ha="center",
        va="center",
        bbox={"boxstyle": "round,pad=0.4", "facecolor": "#060606", "edgecolor": colour},
    )


def draw(figure: Any) -> None:
    """Left, two operations; right, one."""
    axes = blank(figure, 14, 6.1)
    for name, y in LEVELS.items():
        axes.plot([0.1, 13.9], [y - 0.55] * 2, color=LINE, linewidth=0.8)
        axes.text(0.1, y, name, fontsize=10, color=MUTED, va="center")
    axes.plot([7.75] * 2, [0.2, 5.9], color=LINE, linewidth=0.8)

    axes.text(1.7, 5.55, "Two operations", fontsize=13, weight="bold")
    axes.text(1.7, 5.1, "the result between them goes to memory and back", fontsize=10, color=MUTED)
    path(axes, [(2.1, MEMORY), (2.8, REGISTERS), (4.4, MEMORY - 0.35)], BLUE)
    path(axes, [(4.7, MEMORY - 0.35), (6.0, REGISTERS), (6.9, MEMORY - 0.3)], GREEN)
    box(axes, 2.1, MEMORY, "input", MUTED)
    box(axes, 4.55, MEMORY, "depthwise result,\nall of it", ORANGE)
    box(axes, 6.95, MEMORY, "output", MUTED)
    box(axes, 2.85, REGISTERS, "K×K taps", BLUE)
    box(axes, 6.0, REGISTERS, "1×1 sums", GREEN)

    axes.text(8.1, 5.55, "Fused", fontsize=13, weight="bold")
    axes.text(8.1, 5.1, "a tile at a time, which stays in the cache", fontsize=10, color=MUTED)
    path(axes, [(8.6, MEMORY), (9.2, REGISTERS), (10.4, L1 + 0.2)], BLUE)
    path(axes, [(11.2, L1 + 0.2), (12.4, REGISTERS + 0.3), (13.1, MEMORY - 0.3)], GREEN)
    box(axes, 8.6, MEMORY, "input", MUTED)
    box(axes, 9.2, REGISTERS, "K×K taps", BLUE)
    box(
        axes,
        10.8,
        L1 + 0.5,
        "a tile of the depthwise result:\nabout 96 pixels, all channels",
        ORANGE,
    )
    box(axes, 12.3, REGISTERS, "1×1 sums, bias,\nactivation", GREEN)
    box(axes, 13.1, MEMORY, "output", MUTED)


if __name__ == "__main__":
    save(
        __file__,
        "The data's way through the memories, in two operations and fused",
        (10.5, 4.6),
        draw,
    )
