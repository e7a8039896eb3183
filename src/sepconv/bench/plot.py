"""The roofline plot: operations a second over operations a byte, under the machine's limits."""

from __future__ import annotations

import html
import io
import re
from typing import Any

from sepconv.bench import peers
from sepconv.bench.measure import Result
from sepconv.bench.roofline import Machine

__all__ = ["roofline"]

# Matplotlib writes these colours; they stand for those of `_CSS`, which follow the reader's theme.
_THEME = {
    "#010101": "text",
    "#020202": "muted",
    "#030303": "line",
    "#040404": "peer",
    "#050505": "ours",
    "#060606": "page",
}
_TEXT, _MUTED, _LINE, _PEER, _OURS, _PAGE = _THEME

# Blue and orange of Okabe and Ito's palette, which colour-blind readers tell apart; the markers
# differ too.
_CSS = """svg { --page: #ffffff; --text: #1b1f24; --muted: #57606a; --line: #d0d7de;
  --peer: #c25a00; --ours: #0072b2; }
@media (prefers-color-scheme: dark) { svg { --page: #12151a; --text: #e8ebef; --muted: #a3adb8;
  --line: #3a424d; --peer: #f0a030; --ours: #56b4e9; } }"""

# Any: Matplotlib's stubs want a literal type of all its parameters' names.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "roofline",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _TEXT,
    "figure.facecolor": _PAGE,
    "axes.facecolor": _PAGE,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.titlecolor": _TEXT,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.4,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
}
_OPERATIONS = ("separable", "depthwise", "pointwise")


def _roofs(axes: Any, machine: Machine, low: float, high: float) -> None:
    """The limits, each with its name along it."""
    peak = machine.peak / 1e9
    axes.plot([low, high], [peak, peak], color=_TEXT, linewidth=1.5, zorder=2)
    axes.annotate(
        f"multiply-adds {peak:.0f} GFLOP/s",
        (high, peak),
        (-2, 4),
        textcoords="offset points",
        ha="right",
        fontsize=9,
    )
    for level, dashes in zip(machine.levels[::-1], ("-", "--", ":", "-."), strict=False):
        slope = level.bandwidth / 1e9
        axes.plot(
            [low, peak / slope],
            [low * slope, peak],
            color=_MUTED,
            linewidth=1.2,
            linestyle=dashes,
            label=f"{level.name} {slope:.0f} GB/s",
            zorder=2,
        )


def _points(axes: Any, group: list[Result], ours: bool) -> None:
    found = []
    for result in group:
        sample = result.ours if ours else result.samples.get(result.best or "")
        if sample is not None:
            floor = result.floor
            found.append((floor.operations / floor.bytes, floor.operations / sample.median / 1e9))
    style: dict[str, Any] = {"marker": "o", "color": _OURS, "label": "sepconv"}
    if not ours:
        style = {"marker": "s", "edgecolors": _PEER, "facecolors": "none", "label": "best peer"}
    if found:
        axes.scatter(*zip(*found, strict=True), s=22, linewidths=1.2, zorder=3, **style)


def roofline(results: list[Result], machine: Machine) -> str:
    """The plot as an SVG of its own, readable in light and in dark; a panel an operation."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    names = [name for name in _OPERATIONS if any(r.case.operation == name for r in results)]
    intensities = [r.floor.operations / r.floor.bytes for r in results]
    ridge = machine.peak / max(level.bandwidth for level in machine.levels)
    low = min(ridge / 4, min(intensities, default=1) / 2)
    high = max(intensities, default=100) * 2
    rates = [
        r.floor.operations / sample.median / 1e9
        for r in results
        for name, sample in r.samples.items()
        if name in (r.best, peers.OURS)
    ]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.6 * max(len(names), 1) + 0.6, 4.6), layout="constrained")
        panels = figure.subplots(1, max(len(names), 1), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, names or ["separable"], strict=True):
            group = [r for r in results if r.case.operation == name]
            _roofs(axes, machine, low, high)
            _points(axes, group, ours=False)
            _points(axes, group, ours=True)
            axes.set(title=name, xscale="log", yscale="log", xlim=(low, high))
            axes.set_xlabel("operations a byte")
            axes.set_ylim(min(rates, default=1) / 2, machine.peak / 1e9 * 2)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.minorticks_off()
            axes.tick_params(length=0)
        panels[0].set_ylabel("GFLOP/s")
        panels[-1].legend(frameon=False, labelcolor=_TEXT, fontsize=9, loc="lower right")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _themed(
        buffer.getvalue(), "Roofline: sepconv and the best peer under the machine's limits"
    )


def _themed(svg: str, label: str) -> str:
    """Matplotlib's SVG in the reader's colours, with a label for those who do not see it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub("|".join(_THEME), lambda found: f"var(--{_THEME[found.group()]})", svg)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
    return re.sub(r"(<svg[^>]*>)", rf"\1\n<style>{_CSS}</style>", svg, count=1)
