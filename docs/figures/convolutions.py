"""Draws the standard, the depthwise and the pointwise convolution, and the inputs of an output."""

from __future__ import annotations

from typing import Any

from drawing import arrow, blank, save, stack, window

from sepconv.bench.theme import BLUE, GREEN, MUTED, ORANGE, TEXT

COLOURS = (BLUE, ORANGE, GREEN)
CELLS, KERNEL = 6, 3
# Left ends of the input, of the kernels and of the output, and of the text.
INPUT, KERNELS, OUTPUT, WORDS = 0.2, 3.15, 5.3, 8.55


def row(axes: Any, y: float, title: str, words: str, captions: tuple[str, str, str]) -> None:
    """A row's title, text, captions and arrows."""
    axes.text(INPUT, y + 1.0, title, fontsize=13, weight="bold", va="bottom")
    axes.text(WORDS, y + 0.05, words, fontsize=10.5, va="center", linespacing=1.6, color=TEXT)
    for x, caption in zip((INPUT, KERNELS - 0.1, OUTPUT), captions, strict=True):
        axes.text(x, y - 1.0, caption, fontsize=10, color=MUTED, va="top")
    arrow(axes, (KERNELS - 0.65, y), (KERNELS - 0.2, y))
    arrow(axes, (OUTPUT - 0.6, y), (OUTPUT - 0.15, y))


def draw(figure: Any) -> None:
    """All three, one below the other."""
    axes = blank(figure, 12, 9.2)
    seen = [window(1, 2, KERNEL, colour) for colour in COLOURS]

    y = 7.7
    row(
        axes,
        y,
        "Standard",
        "one output value sees a window\nof every channel:\n"
        "$K^2 \\cdot C$ multiply-adds,\n$K^2 \\cdot C \\cdot F$ a pixel",
        ("input, C channels", "F kernels K×K×C", "output, F channels"),
    )
    stack(axes, INPUT, y, seen, CELLS)
    stack(axes, KERNELS, y, [window(0, 0, KERNEL, c) for c in COLOURS], KERNEL, step=0.15)
    stack(axes, OUTPUT, y, [[(2, 3, TEXT)], [], [], []], CELLS)

    y = 4.7
    row(
        axes,
        y,
        "Depthwise",
        "every channel has a kernel\nof its own:\n$K^2$ multiply-adds,\n$K^2 \\cdot C$ a pixel",
        ("input, C channels", "C kernels K×K", "C channels"),
    )
    stack(axes, INPUT, y, seen, CELLS)
    for index, colour in enumerate(COLOURS):
        stack(axes, KERNELS - 0.1 + 0.55 * index, y, [window(0, 0, KERNEL, colour)], KERNEL)
    stack(axes, OUTPUT, y, [[(2, 3, colour)] for colour in COLOURS], CELLS)

    y = 1.7
    row(
        axes,
        y,
        "Pointwise (1×1)",
        "one output value sees one pixel\nof every channel:\n$C$ multiply-adds,\n"
        "$C \\cdot F$ a pixel",
        ("C channels", "F kernels 1×1×C", "output, F channels"),
    )
    stack(axes, INPUT, y, [[(2, 3, colour)] for colour in COLOURS], CELLS)
    for index, colour in enumerate(COLOURS):
        stack(axes, KERNELS + 0.4 * index, y, [[(0, 0, colour)]], 1)
    stack(axes, OUTPUT, y, [[(2, 3, TEXT)], [], [], []], CELLS)


if __name__ == "__main__":
    save(__file__, "Standard, depthwise and pointwise convolution", (9, 6.9), draw)
