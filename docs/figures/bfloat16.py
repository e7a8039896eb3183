"""Draws the accuracies of trainings in float32 and under `mixed_bfloat16`, epoch by epoch."""

from __future__ import annotations

import statistics
from typing import Any

from bars import WIDTH
from drawing import save
from tables import TRAININGS

from sepconv.bench.theme import BLUE, ORANGE, TEXT

#: Policy -> colour and dashes of its line.
STYLES = {"float32": (BLUE, "-"), "mixed_bfloat16": (ORANGE, "--")}


def draw(figure: Any) -> None:
    """A panel for each set of pictures: the mean of the seeds, and from the worst to the best."""
    panels = figure.subplots(len(TRAININGS), 1)
    for axes, (data, policies) in zip(panels, TRAININGS.items(), strict=True):
        for policy, (colour, dashes) in STYLES.items():
            accuracies = [curves["val_accuracy"] for curves in policies[policy]]
            each = [[100 * value for value in epoch] for epoch in zip(*accuracies, strict=True)]
            epochs = range(1, len(each) + 1)
            axes.fill_between(
                epochs, list(map(min, each)), list(map(max, each)), color=colour, alpha=0.15
            )
            mean = [statistics.mean(epoch) for epoch in each]
            axes.plot(epochs, mean, dashes, color=colour, linewidth=1.6, label=policy)
        last = policies["float32"][0]["val_accuracy"]
        axes.set(xlim=(1, len(last)), ylim=(40, 101) if max(last) > 0.95 else (40, 90))
        axes.set_title(data, fontsize=10.5, loc="left")
        axes.set_ylabel("accuracy, %")
        axes.tick_params(length=0)
        axes.legend(frameon=False, labelcolor=TEXT, fontsize=9.5, loc="lower right")
    panels[-1].set_xlabel("epoch")
    figure.tight_layout()


if __name__ == "__main__":
    save(__file__, "Accuracy in float32 and under mixed_bfloat16, epoch by epoch", (WIDTH, 5), draw)
