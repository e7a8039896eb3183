"""Draws how many times longer stock Keras takes for a training step of a whole network."""

from __future__ import annotations

from typing import Any

from bars import WIDTH, heading, panels, ratios
from drawing import save
from tables import MEASURED

from sepconv.bench.theme import MUTED

LEFT = 1.3


def draw(figure: Any) -> None:
    """Draws a panel for each engine."""
    groups = {
        engine["name"]: {row["network"]: row["ratio"] for row in engine["rows"]}
        for engine in MEASURED["steps"]
    }
    highest = max(max(group.values()) for group in groups.values())
    made = panels(figure, [len(group) for group in groups.values()], LEFT, 0.6)
    for axes, (title, group) in zip(made, groups.items(), strict=True):
        ratios(axes, group, (0.85, 1.9 * highest), 1)
        heading(axes, title, LEFT)
        if axes is not made[-1]:
            axes.tick_params(labelbottom=False)
    label = "stock Keras' time over sepconv's (logarithmic)"
    made[-1].set_xlabel(label, color=MUTED, fontsize=10)


if __name__ == "__main__":
    save(__file__, "How many times longer stock Keras takes for a training step", (WIDTH, 1), draw)
