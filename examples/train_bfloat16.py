"""Trains one separable network in float32 and under Keras' `mixed_bfloat16`, and compares them.

    KERAS_BACKEND=jax python examples/train_bfloat16.py
    KERAS_BACKEND=torch python examples/train_bfloat16.py --data fashion-mnist

The pictures are those of `sepconv demo`: scikit-learn's handwritten digits, of which a quarter is
held out, or 6,000 of Fashion-MNIST's, if Debian's package dataset-fashion-mnist is installed. Both
trainings of a seed begin with the same weights and see the same pictures in the same order. Prints
the accuracy on the held-out pictures, the mean and the standard deviation over seeds, and ends with
status 1 if bfloat16 loses more than half a point. Needs scikit-learn and an engine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from sepconv import layers
from sepconv.demo.data import DATA_SETS, Pictures, load

POLICIES = ("float32", "mixed_bfloat16")
BATCH_SIZE = 32
#: The most that bfloat16's mean accuracy may be below float32's.
TOLERANCE = 0.005

#: The curves of a training: "loss" and "val_accuracy", a number for each epoch.
Curves = dict[str, list[float]]


def build_network(policy: str, classes: int) -> Any:
    """An ordinary convolution, three separable blocks, and logits, which are float32 in any case.

    Args:
        policy: Keras' dtype policy of every layer but the last. Under ``mixed_bfloat16`` weights
            are kept in float32, and layers compute and hand on bfloat16.
        classes: the number of logits.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((32, 32, 1))
        x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(inputs)
        x = keras.layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        for filters, stride in ((32, 1), (64, 2), (64, 1)):
            x = layers.SeparableConv2D(filters, 3, strides=stride, padding="same", use_bias=False)(
                x
            )
            x = keras.layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        x = keras.layers.GlobalAveragePooling2D()(x)
        # The loss takes exponentials of logits, for which bfloat16's eight bits are few.
        return keras.Model(inputs, keras.layers.Dense(classes, dtype="float32")(x))
    finally:
        keras.config.set_dtype_policy(before)


def train(policy: str, pictures: Pictures, epochs: int, seed: int) -> Curves:
    """Trains once, at a rate that falls to 0."""
    keras.utils.set_random_seed(seed)
    model = build_network(policy, len(pictures.classes))
    steps = -(-len(pictures.x_train) // BATCH_SIZE)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, epochs * steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        pictures.x_train,
        pictures.y_train,
        BATCH_SIZE,
        epochs,
        verbose=0,
        validation_data=(pictures.x_test, pictures.y_test),
    ).history
    return {
        name: [round(float(value), 5) for value in history[name]]
        for name in ("loss", "val_accuracy")
    }


def compare(data: str, epochs: int, seeds: int) -> dict[str, list[Curves]]:
    """Trains with each seed in each policy, and prints the accuracies as they come.

    Args:
        data: a key of `sepconv.demo.data.DATA_SETS`.
        epochs: of each training.
        seeds: how many trainings a policy has.

    Returns:
        The curves of each training, by policy.
    """
    pictures = load(data)
    found: dict[str, list[Curves]] = {policy: [] for policy in POLICIES}
    print(
        f"{pictures.title} on {keras.backend.backend()}: {len(pictures.x_train)} pictures, "
        f"{epochs} epochs; accuracies of {len(pictures.x_test)} others"
    )
    for seed in range(seeds):
        for policy in POLICIES:
            found[policy].append(train(policy, pictures, epochs, seed))
        reached = "  ".join(f"{p} {found[p][-1]['val_accuracy'][-1]:.2%}" for p in POLICIES)
        print(f"  seed {seed}: {reached}", flush=True)
    return found


def accuracies(found: dict[str, list[Curves]]) -> dict[str, list[float]]:
    """The accuracies after the last epoch, by policy."""
    return {
        policy: [run["val_accuracy"][-1] for run in trainings]
        for policy, trainings in found.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 where bfloat16 is as accurate as promised, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", choices=tuple(DATA_SETS), default="digits")
    parser.add_argument("--epochs", type=int, default=20, help="of each training")
    parser.add_argument("--seeds", type=int, default=5, help="trainings in each dtype")
    parser.add_argument(
        "--output",
        type=Path,
        help="a JSON file for the curves, which docs/figures/bfloat16.py draws",
    )
    options = parser.parse_args(arguments)
    if min(options.epochs, options.seeds) < 1:
        parser.error("--epochs and --seeds must be at least 1")
    found = compare(options.data, options.epochs, options.seeds)
    reached = accuracies(found)
    for policy, each in reached.items():
        spread = f" ± {statistics.stdev(each):.2%}" if len(each) > 1 else ""
        print(f"  {policy:15} {statistics.mean(each):.2%}{spread}")
    if options.output is not None:
        said = {"engine": keras.backend.backend(), "data": options.data, "curves": found}
        options.output.write_text(json.dumps(said) + "\n", encoding="utf-8")
    lost = statistics.mean(reached["float32"]) - statistics.mean(reached["mixed_bfloat16"])
    if lost > TOLERANCE:
        print(f"mixed_bfloat16 is {lost:.2%} less accurate than float32", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
