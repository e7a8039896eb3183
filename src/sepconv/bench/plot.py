"""The roofline plot: operations a second over operations a byte, under the machine's limits."""

from __future__ import annotations

from typing import Any

from sepconv.bench import peers
from sepconv.bench.measure import Result
from sepconv.bench.roofline import Machine
from sepconv.bench.theme import BLUE, MUTED, ORANGE, STYLE, TEXT, themed

__all__ = ["roofline"]

_OPERATIONS = ("separable", "depthwise", "pointwise")


def _roofs(axes: Any, machine: Machine, low: float, high: float) -> None:
    """The limits, each with its name along it."""
    peak = machine.peak / 1e9
    axes.plot([low, high], [peak, peak], color=TEXT, linewidth=1.5, zorder=2)
    axes.annotate(
        f"multiply-adds {peak:.0f} GFLOP/s"
        + ("" if machine.dtype == "float32" else f", {machine.dtype}"),
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
            color=MUTED,
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
    style: dict[str, Any] = {"marker": "o", "color": BLUE, "label": "sepconv"}
    if not ours:
        style = {"marker": "s", "edgecolors": ORANGE, "facecolors": "none", "label": "best peer"}
    if found:
        axes.scatter(*zip(*found, strict=True), s=22, linewidths=1.2, zorder=3, **style)


def roofline(results: list[Result], machine: Machine) -> str:
    """The plot as a standalone SVG, for light and dark themes; a panel for each operation."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator

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
    with mpl.rc_context(STYLE):
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
            if machine.peak / 1e9 < 100 * min(rates, default=1):  # few powers of ten to label
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.minorticks_off()
            axes.tick_params(length=0)
        panels[0].set_ylabel("GFLOP/s")
        panels[-1].legend(frameon=False, labelcolor=TEXT, fontsize=9, loc="lower right")
        return themed(figure, "Roofline: sepconv and the best peer under the machine's limits")
