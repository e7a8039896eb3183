"""Draws how many multiply-adds a separable convolution takes beside a standard one."""

from __future__ import annotations

from typing import Any

from drawing import save

from sepconv.bench.theme import BLUE, MUTED, ORANGE, TEXT

#: Size of the output, kernel size, channels in and out; of layers of published networks.
LAYERS = {
    "MobileNet, 112×112×32 → 64, 3×3": (112, 3, 32, 64),
    "MobileNet, 56×56×128 → 128, 3×3": (56, 3, 128, 128),
    "Xception, 19×19×728 → 728, 3×3": (19, 3, 728, 728),
    "EfficientNet, 28×28×240 → 40, 5×5": (28, 5, 240, 40),
    "ConvNeXt, 28×28×192 → 768, 7×7": (28, 7, 192, 768),
}


def draw(figure: Any) -> None:
    """Draws a bar for each layer, in per cent of the standard convolution."""
    axes = figure.add_axes((0.37, 0.17, 0.6, 0.7))
    for place, (_, kernel, channels, filters) in enumerate(LAYERS.values()):
        standard = kernel**2 * channels * filters / 100
        depthwise, pointwise = kernel**2 * channels / standard, channels * filters / standard
        labels = ("standard", "depthwise step", "1×1 step") if place == 0 else (None,) * 3
        axes.barh(place, 100, 0.6, color="none", edgecolor=MUTED, linewidth=0.8, label=labels[0])
        axes.barh(place, depthwise, 0.6, color=ORANGE, label=labels[1])
        axes.barh(place, pointwise, 0.6, left=depthwise, color=BLUE, label=labels[2])
        axes.annotate(
            f"{100 / (depthwise + pointwise):.1f} times fewer",
            (depthwise + pointwise, place),
            (6, 0),
            textcoords="offset points",
            fontsize=10,
            va="center",
        )
    axes.set_xlim(0, 101)
    axes.set_yticks(range(len(LAYERS)), LAYERS, fontsize=10)
    axes.tick_params(axis="y", labelcolor=TEXT)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(length=0)
    axes.set_xlabel("multiply-adds, in per cent of the standard convolution's", color=MUTED)
    figure.legend(frameon=False, ncols=3, labelcolor=TEXT, loc="upper center", fontsize=10)


if __name__ == "__main__":
    save(__file__, "Multiply-adds of separable convolutions beside standard ones", (9, 3.6), draw)
