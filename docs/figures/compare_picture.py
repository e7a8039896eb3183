"""Draws the time of one picture through a whole network, on sepconv and on runtimes."""

from __future__ import annotations

from typing import Any

from bars import WIDTH, heading, panels, times
from drawing import save
from tables import MEASURED

from sepconv.bench.theme import BLUE, MUTED, ORANGE

LEFT = 1.9


def draw(figure: Any) -> None:
    """Draws a panel for each network; peers that are faster than sepconv are orange."""
    data = MEASURED["picture"]
    networks, rows = data["networks"], data["rows"]
    made = panels(figure, [len(rows)] * len(networks), LEFT, 0.6)
    for column, (axes, network) in enumerate(zip(made, networks, strict=True)):
        ours = next(row["ms"][column] for row in rows if "sepconv" in row["who"])
        group = {}
        for row in rows:
            milliseconds = row["ms"][column]
            colour = ORANGE if milliseconds < ours else BLUE
            if "floor" in row["who"]:
                colour = MUTED
            elif "sepconv" in row["who"]:
                colour = BLUE
            group[row["who"].replace("`", "")] = (milliseconds, f"{milliseconds} ms", colour)
        times(axes, group, 1.2 * max(max(row["ms"]) for row in rows))
        heading(axes, network, LEFT)
        if axes is not made[-1]:
            axes.tick_params(labelbottom=False)
    made[-1].set_xlabel("milliseconds, batch 1; shorter is better", color=MUTED, fontsize=10)


if __name__ == "__main__":
    save(__file__, "Milliseconds for one picture through a whole network", (WIDTH, 1), draw)
