"""Draws the time of a training step before and after patching, on every engine."""

from __future__ import annotations

from typing import Any

from bars import WIDTH, heading, panels, times
from drawing import save
from tables import MEASURED, milliseconds

from sepconv.bench.theme import BLUE, MUTED

NETWORKS = ("MobileNet", "EfficientNetB0")
ENGINES = ("JAX", "PyTorch", "TensorFlow")
LEFT = 1.55


def draw(figure: Any) -> None:
    """Draws a panel for each network, with two bars for each engine."""
    made = panels(figure, [2 * len(ENGINES)] * len(NETWORKS), LEFT, 0.1)
    for axes, network in zip(made, NETWORKS, strict=True):
        group = {}
        for engine in MEASURED["steps"]:
            if engine["name"] not in ENGINES:
                continue
            row = next(row for row in engine["rows"] if row["network"] == network)
            before, after = milliseconds(row["stock"]), milliseconds(row["sepconv"])
            group[engine["name"]] = (before, f"{before:.0f} ms", MUTED)
            text = f"{after:.0f} ms, {row['ratio']} times faster"
            group[f"{engine['name']}, sepconv"] = (after, text, BLUE)
        times(axes, group, 1.2 * max(bar[0] for bar in group.values()))
        heading(axes, f"{network}, milliseconds for one training step", LEFT)
        axes.set_xticks([])


if __name__ == "__main__":
    save(__file__, "A training step before and after, on every engine", (WIDTH, 1), draw)
