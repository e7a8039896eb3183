"""The picture of where a network's time goes: a bar a layer, with its floor marked on it."""

from __future__ import annotations

from typing import Any

from sepconv.bench.theme import BLUE, GREEN, MUTED, ORANGE, STYLE, TEXT, themed
from sepconv.explain.analysis import Explanation, Row

__all__ = ["picture"]

#: More layers than this do not fit on a page; the quickest are then drawn as one bar.
_MOST = 60

_COLOURS = {
    "depthwise": BLUE,
    "separable": BLUE,
    "convolution": ORANGE,
    "transposed": ORANGE,
    "dense": GREEN,
}
_OTHERS = "the others together"


def picture(found: Explanation) -> str:
    """The picture as an SVG of its own, readable in light and in dark."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    bars = _bars(found.rows)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.6 + 0.24 * len(bars)), layout="constrained")
        axes = figure.subplots()
        for place, (_, kind, seconds, floor) in enumerate(bars):
            colour = _COLOURS.get(kind, MUTED)
            axes.barh(place, 1e3 * seconds, height=0.7, color=colour, zorder=2)
            axes.plot(
                [1e3 * floor] * 2, [place - 0.42, place + 0.42], color=TEXT, linewidth=2, zorder=3
            )
            axes.annotate(
                found.share(seconds),
                (1e3 * max(seconds, floor), place),
                (5, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        labels = [f"{name}  ·  {kind}" if kind else name for name, kind, _, _ in bars]
        axes.set_yticks(range(len(bars)), labels, fontsize=9)
        axes.invert_yaxis()
        axes.margins(x=0.08, y=0.01)
        axes.grid(visible=False, axis="y")
        axes.tick_params(length=0)
        axes.set_xlabel("milliseconds, each layer alone")
        axes.set_title(
            f"{found.name} on {found.engine}, batch {found.batch}: "
            f"{1e3 * found.seconds:.1f} ms as a whole"
        )
        kinds = [kind for kind in _COLOURS if any(bar[1] == kind for bar in bars)]
        handles: list[Any] = [Patch(color=_COLOURS[kind], label=kind) for kind in kinds]
        handles.append(Line2D([], [], color=TEXT, linewidth=2, label="floor"))
        axes.legend(handles=handles, frameon=False, labelcolor=TEXT, fontsize=9, loc="best")
        return themed(figure, f"Time of each layer of {found.name}, and the least possible")


def _bars(rows: list[Row]) -> list[tuple[str, str, float, float]]:
    """(name, kind, seconds, floor) of every bar, in the order of computing."""
    ranked = sorted(rows, key=lambda row: row.seconds, reverse=True)
    shown, rest = {id(row) for row in ranked[:_MOST]}, ranked[_MOST:]
    bars = [(r.name, r.kind, r.seconds, r.floor) for r in rows if id(r) in shown]
    if rest:
        bars.append((_OTHERS, "", sum(r.seconds for r in rest), sum(r.floor for r in rest)))
    return bars
