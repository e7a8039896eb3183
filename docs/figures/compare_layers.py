"""Draws how many times longer each peer takes for a layer, in the mean."""

from __future__ import annotations

from typing import Any

from bars import WIDTH, heading, panels, ratios
from drawing import save
from tables import MEASURED, layer_title

from sepconv.bench.theme import MUTED

LEFT = 1.3


def draw(figure: Any) -> None:
    """Draws a panel for each kind of layer; the last bar is over the fastest peer of each layer."""
    data = MEASURED["layers"]
    groups = [dict(zip(data["peers"], row["peers"], strict=False)) for row in data["rows"]]
    for group, row in zip(groups, data["rows"], strict=True):
        if len(group) > 1:
            group["the best of them"] = row["best"]
    highest = max(max(group.values()) for group in groups)
    made = panels(figure, [len(group) for group in groups], LEFT, 0.6)
    for axes, row, group in zip(made, data["rows"], groups, strict=True):
        ratios(axes, group, (0.85, 1.3 * highest), 2)
        title = f"{layer_title(row)}; behind in {row['behind']} of {row['cases']}"
        heading(axes, title, LEFT)
        if axes is not made[-1]:
            axes.tick_params(labelbottom=False)
    made[-1].set_xlabel("the peer's time over sepconv's (logarithmic)", color=MUTED, fontsize=10)


if __name__ == "__main__":
    save(__file__, "How many times longer each peer takes for a layer", (WIDTH, 1), draw)
