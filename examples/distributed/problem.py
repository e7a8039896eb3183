"""The training of all workers: a small network of sepconv's layers, and a batch of pictures."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

__all__ = ["BATCH", "LEARNING_RATE", "MOMENTUM", "build", "options", "pictures", "report"]

BATCH = 16  # pictures a step, over all processes
LEARNING_RATE, MOMENTUM = 0.05, 0.9


def options() -> argparse.Namespace:
    """A worker's command line, which `processes.Workers` writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, required=True, help="this process's number")
    parser.add_argument("--world", type=int, required=True, help="how many processes there are")
    parser.add_argument("--port", type=int, action="append", required=True, help="one a process")
    parser.add_argument("--steps", type=int, required=True, help="training steps")
    parser.add_argument("--way", default="", help="which of an engine's several ways")
    parser.add_argument("--patience", type=int, default=10, help="seconds to wait for the others")
    return parser.parse_args()


def build() -> Any:
    """The network, with the same weights in every process.

    It has no batch normalization, whose result over a part of a batch differs from that over the
    whole; losses would differ without a fault in the convolutions.
    """
    import keras

    from sepconv import layers

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.SeparableConv2D(16, 3, padding="same", activation="relu"),
            layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2),
            layers.SeparableConv2D(24, 5, padding="same", activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),
        ]
    )


def pictures(rank: int, world: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of a step's batch for one process: pictures and their classes."""
    rng = np.random.default_rng(step)
    x = rng.standard_normal((BATCH, 16, 16, 3)).astype("float32")
    y = rng.integers(0, 10, BATCH).astype("int32")
    share = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    return x[share], y[share]


def report(step: int, loss: Any) -> None:
    """Prints a step's loss, over all processes, for the parent process."""
    print(f"loss {step} {float(loss)!r}", flush=True)
