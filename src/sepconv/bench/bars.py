"""Plots the speed-ups as bars: each peer's time over sepconv's, one panel for each mode."""

from __future__ import annotations

from typing import Any

from sepconv.bench.theme import BLUE, ORANGE, STYLE, TEXT, themed

__all__ = ["bars"]

_TICKS = [step * ten for ten in (0.01, 0.1, 1, 10, 100, 1000) for step in (1, 2, 5)]


def bars(groups: dict[str, dict[str, float]], dtype: str = "float32") -> str:
    """The plot as a standalone SVG, for light and dark themes.

    Args:
        groups: for each panel, by its title: the peers' times over sepconv's, by their names.
        dtype: of all of them, for the words.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    groups = {title: group for title, group in groups.items() if group}
    ratios = [ratio for group in groups.values() for ratio in group.values()]
    low, high = min([1.0, *ratios]), max([1.0, *ratios])
    heights = [len(group) for group in groups.values()] or [1]
    with mpl.rc_context(STYLE):
        size = (9, 0.8 + 0.3 * sum(heights) + 0.5 * len(heights))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
        for axes, (title, group) in zip(panels[:, 0], groups.items(), strict=False):
            _panel(axes, title, group)
        last = panels[-1, 0]
        last.set(xscale="log", xlim=(low / 1.6, high * 1.6))
        ticks = [tick for tick in _TICKS if low / 1.6 < tick < high * 1.6]
        last.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        last.minorticks_off()
        own = "sepconv's" if dtype == "float32" else f"sepconv's in {dtype}"
        last.set_xlabel(f"the peer's time over {own}, geometric mean (logarithmic)")
        told = "How many times longer each peer takes than sepconv"
        return themed(figure, told if dtype == "float32" else f"{told}, in {dtype}")


def _panel(axes: Any, title: str, group: dict[str, float]) -> None:
    """A mode's bars, which begin at 1: to the right where sepconv is faster, else to the left."""
    ranked = sorted(group.items(), key=lambda pair: pair[1], reverse=True)
    for place, (_, ratio) in enumerate(ranked):
        ahead = ratio >= 1
        axes.barh(place, ratio - 1, left=1, height=0.7, color=BLUE if ahead else ORANGE, zorder=2)
        axes.annotate(
            f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x",
            (ratio, place),
            (4 if ahead else -4, 0),
            textcoords="offset points",
            va="center",
            ha="left" if ahead else "right",
            fontsize=9,
        )
    axes.axvline(1, color=TEXT, linewidth=1.2, zorder=3)
    axes.set_yticks(range(len(ranked)), [name for name, _ in ranked], fontsize=9)
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(length=0)
    axes.set_title(title)
