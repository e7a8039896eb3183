"""Trains a network of ordinary convolutions on digits, then makes them separable.

    KERAS_BACKEND=jax python examples/factorize_digits.py

The pictures are the 1797 handwritten digits of 8 by 8 pixels that come with scikit-learn. A fifth
of them is held out, and every accuracy is of those. The network must reach 99%; its copy must take
a third of the multiply-adds and, fine-tuned for three epochs, lose less than half a point.
Otherwise the script says so and ends with status 1. It needs scikit-learn and an engine.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import sepconv

BATCH_SIZE = 32


class Outcome(NamedTuple):
    """Held-out accuracies before, right after it and after fine-tuning, and the report."""

    trained: float
    factorized: float
    tuned: float
    report: Any


def build_network(filters: Sequence[int]) -> Any:
    """Ordinary 3x3 convolutions, each with batch norm and relu; the picture is halved once."""
    layers = [keras.Input((8, 8, 1))]
    for i, count in enumerate(filters):
        layers.append(keras.layers.Conv2D(count, 3, padding="same", use_bias=False))
        layers.append(keras.layers.BatchNormalization(momentum=0.9))
        layers.append(keras.layers.ReLU())
        if i == 1:
            layers.append(keras.layers.MaxPooling2D(2))
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    return keras.Sequential(layers, name="digits")


def fit(
    model: Any,
    x: np.ndarray,
    y: np.ndarray,
    epochs: int,
    rate: float,
    seed: int,
    teacher: Any = None,
) -> None:
    """Trains on pictures that are shifted randomly by up to a pixel, at a rate that falls to 0.

    A teacher's logits, if given, replace the labels: they carry more information for each picture
    (Hinton et al., Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531).
    """
    steps = -(-len(x) // BATCH_SIZE)
    labels = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, epochs * steps)),
        keras.losses.MeanSquaredError() if teacher else labels,
    )
    rng = np.random.default_rng(seed)
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    for _ in range(epochs):
        order, shifts = rng.permutation(len(x)), rng.integers(0, 3, (len(x), 2))
        rows, columns = (shifts[:, axis, None] + np.arange(8) for axis in (0, 1))
        moved = padded[np.arange(len(x))[:, None, None], rows[..., None], columns[:, None]]
        target = teacher.predict(moved, verbose=0) if teacher else y
        model.fit(moved[order], target[order], BATCH_SIZE, epochs=1, shuffle=False, verbose=0)


def accuracy(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    """The fraction of pictures that the model classifies correctly."""
    return float((model.predict(x, verbose=0).argmax(1) == y).mean())


def run(filters: Sequence[int], epochs: int, flops: float, seed: int) -> Outcome:
    """Trains, factorizes, fine-tunes for three epochs, and prints the results."""
    started = time.perf_counter()
    keras.utils.set_random_seed(seed)
    digits = load_digits()
    x = (digits.images[..., None] / 16).astype("float32")
    x_train, x_test, y_train, y_test = train_test_split(
        x, digits.target, test_size=0.2, stratify=digits.target, random_state=seed
    )
    model = build_network(filters)
    fit(model, x_train, y_train, epochs, 3e-3, seed)
    trained = accuracy(model, x_test, y_test)
    print(f"trained on {len(x_train)} pictures in {time.perf_counter() - started:.0f} s")

    smaller, report = sepconv.factorize(model, flops=flops, data=x_train)
    print(f"\n{report}\n")
    factorized = accuracy(smaller, x_test, y_test)
    fit(smaller, x_train, y_train, 3, 3e-3, seed, teacher=model)
    tuned = accuracy(smaller, x_test, y_test)

    print(f"accuracy on {len(x_test)} held-out pictures, {keras.backend.backend()}, seed {seed}")
    print(f"  ordinary convolutions       {trained:8.2%}")
    print(f"  factorized                  {factorized:8.2%}")
    print(f"  fine-tuned for 3 epochs     {tuned:8.2%}")
    print(f"all of it took {time.perf_counter() - started:.0f} s")
    return Outcome(trained, factorized, tuned, report)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 where the accuracies are as promised, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--epochs", type=int, default=30, help="of the first training")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    outcome = run((32, 64, 64), given.epochs, 0.32, given.seed)
    before, after = outcome.report.multiply_adds
    promises = {
        "99% before": outcome.trained >= 0.99,
        "a third of the multiply-adds": before >= 3 * after,
        "less than half a point lost": outcome.trained - outcome.tuned < 0.005,
    }
    broken = [promise for promise, kept in promises.items() if not kept]
    if broken:
        print(f"not kept: {', '.join(broken)}", file=sys.stderr)
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
