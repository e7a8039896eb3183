"""Holds keras.applications' networks, patched and accelerated, against Keras' own computation.

    python benchmarks/applications.py --engine jax

For every network a row for `patch_keras` and one for `accelerate`: how far predictions and the
gradients of one training step are from stock Keras', and the losses over some steps of training.
A third, "a rounding", is stock against stock with every weight off by its last bit: what float32
leaves open. It is much where a sign decides: a rounding that takes one input in 1e5 over the kink
of a relu changes gradients by the root of that, 3e-3. ``--dtype float64`` shows the same
computation without; not on JAX, where Keras' batch normalisation rounds to float32, which hides
what it should show. Exits with 1 where a difference is greater than it may be; "no, nor stock" says
that a rounding of stock's weights does as much.

Weights are random and seeded, but not as Keras initialises them: for depthwise kernels that is too
small by the square root of the channels, signals fall below batch normalisation's epsilon, and what
comes out is rounding and offsets. Here they have He's variance, for what each output sums over; the
moving statistics are those of a batch, varied by a fifth. The optimizer is SGD with momentum 0.9,
gradients clipped to a norm of 1, rate 1e-4: freshly initialised networks amplify roundings, ten to
a hundred times a step where steps are so large that the loss of a batch of 8 falls to nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

NETWORKS = (
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "MobileNetV3Large",
    "Xception",
    "EfficientNetB0",
    "NASNetMobile",
)
SMALLEST = {"Xception": 71}
CLASSES = 10
ROUNDING = "a rounding"
RATE = 1e-4

#: How far from stock predictions, gradients and losses may be, relative.
BOUNDS = (1e-5, 1e-4, 1e-3)


class Run(NamedTuple):
    """What one way of computing gives: predictions, gradients, losses."""

    predictions: Any
    gradients: Any
    losses: Any


class Row(NamedTuple):
    """A network computed in one way, against stock."""

    network: str
    way: str
    predictions: float
    gradients: float
    losses: float
    first_loss: float
    last_loss: float

    def verdict(self, rounding: Row) -> str:
        """Whether all is within the bounds, else whether a rounding leaves them as well."""
        found = self.predictions, self.gradients, self.losses
        if all(d <= bound for d, bound in zip(found, BOUNDS, strict=True)):
            return "yes"
        allowed = [
            max(bound, d)
            for bound, d in zip(
                BOUNDS, (rounding.predictions, rounding.gradients, rounding.losses), strict=True
            )
        ]
        return "no, nor stock" if all(d <= a for d, a in zip(found, allowed, strict=True)) else "NO"


def relative(received: Any, expected: Any) -> float:
    """The distance of two arrays relative to the second's norm."""
    import numpy as np

    expected = np.asarray(expected, "float64")
    return float(np.linalg.norm(received - expected) / np.linalg.norm(expected))


def prepare(model: Any, x: Any) -> None:
    """Random weights, and batch normalisation with the statistics of `x`, about."""
    import keras
    import numpy as np

    random = np.random.default_rng(0)
    for layer in model.layers:
        for variable in layer.weights:
            if len(variable.shape) == 4:
                depthwise = "depthwise" in variable.path or isinstance(
                    layer, keras.layers.DepthwiseConv2D
                )
                summed = np.prod(variable.shape[: 2 if depthwise else 3])
                variable.assign(random.standard_normal(variable.shape) * np.sqrt(2 / summed))
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    model(x, training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        for variable in layer.weights:
            values = keras.ops.convert_to_numpy(variable)
            varied = values * random.uniform(0.8, 1.2, values.shape)
            if variable.name == "beta":
                varied = random.uniform(-0.2, 0.2, values.shape)
            variable.assign(varied.astype(values.dtype))


def compiled(model: Any) -> Any:
    """The model, with a new optimizer."""
    import keras

    optimizer = keras.optimizers.SGD(RATE, momentum=0.9, global_clipnorm=1.0)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def run(model: Any, x: Any, y: Any, steps: int) -> Run:
    """Predicts, then trains; the model is left trained."""
    import keras
    import numpy as np

    predictions = np.asarray(model.predict_on_batch(x), "float64")
    compiled(model)
    # A dropout layer without a seed of its own draws from PyTorch's generator, where that computes.
    keras.utils.set_random_seed(1)
    losses, gradients = [], None
    for _ in range(steps):
        losses.append(float(model.train_on_batch(x, y)))
        if gradients is None:
            # After one step the momenta are the gradients but for a factor: variables 0 and 1 are
            # the number of steps and the rate.
            momenta = model.optimizer.variables[2:]
            gradients = np.concatenate(
                [np.ravel(keras.ops.convert_to_numpy(m)) for m in momenta]
            ).astype("float64")
    return Run(predictions, gradients, np.asarray(losses))


def compare(network: str, size: int, batch: int, steps: int) -> Iterator[Row]:
    """The rows of one network."""
    import keras
    import numpy as np

    import sepconv

    size = max(size, SMALLEST.get(network, size))
    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, network)
    if "V3" in network:
        build = functools.partial(build, include_preprocessing=False)
    stock = build(
        weights=None,
        input_shape=(size, size, 3),
        classes=CLASSES,
        classifier_activation=None,
    )
    x = np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3)).astype("float32")
    y = np.arange(batch) % CLASSES
    prepare(stock, x)
    accelerated, record = sepconv.accelerate(stock)
    assert record.changed == len(record) > 0, record
    start = [keras.ops.convert_to_numpy(variable) for variable in stock.variables]

    def restarted() -> Any:
        for variable, values in zip(stock.variables, start, strict=True):
            variable.assign(values)
        return stock

    expected = run(stock, x, y, steps)
    # Predicting must come before: the patch has to reach a model that is compiled already.
    ways: list[tuple[str, Callable[[], Any], Any]] = [
        ("patched", restarted, sepconv.patch_keras),
        ("accelerated", lambda: accelerated, contextlib.nullcontext),
        (ROUNDING, lambda: nudged(restarted()), contextlib.nullcontext),
    ]
    for way, make, context in ways:
        model = make()
        with context():
            received = run(model, x, y, steps)
        yield Row(
            network,
            way,
            *(relative(r, e) for r, e in zip(received[:2], expected[:2], strict=True)),
            float(np.max(np.abs(received.losses / expected.losses - 1))),
            float(received.losses[0]),
            float(received.losses[-1]),
        )


def nudged(model: Any) -> Any:
    """The model with every weight changed by a rounding, up or down."""
    import keras
    import numpy as np

    random = np.random.default_rng(1)
    for variable in model.trainable_variables:
        values = keras.ops.convert_to_numpy(variable)
        way = np.where(random.random(values.shape) < 0.5, np.inf, -np.inf).astype(values.dtype)
        variable.assign(np.nextafter(values, way))
    return model


def table(title: str, rows: dict[Row, str]) -> Any:
    """The rows as a table of rich's."""
    from rich.table import Table

    made = Table(title=title)
    for heading in ("network", "way", "predictions", "gradients", "losses", "loss", "near"):
        made.add_column(heading)
    for row, near in rows.items():
        differences = (f"{d:.1e}" for d in (row.predictions, row.gradients, row.losses))
        loss = f"{row.first_loss:.3f} to {row.last_loss:.3f}"
        made.add_row(row.network, row.way, *differences, loss, near)
    return made


def main() -> int:
    """Runs the command line above."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--engine", choices=("jax", "torch", "tensorflow"), default="jax")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--size", type=int, default=96, help="height and width of the input")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20, help="of training")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    options = parser.parse_args()
    os.environ["KERAS_BACKEND"] = options.engine
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    if options.dtype == "float64" and options.engine == "jax":
        parser.error("on JAX, Keras' batch normalisation computes in float32 whatever the dtype")
    import keras
    from rich.console import Console
    from rich.progress import Progress

    keras.config.set_floatx(options.dtype)
    rows: dict[Row, str] = {}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(options.engine, total=len(options.networks))
        for network in options.networks:
            progress.update(task, description=f"{network} on {options.engine}")
            *ours, rounding = compare(network, options.size, options.batch, options.steps)
            rows |= {row: row.verdict(rounding) for row in ours}
            rows[rounding] = ""
            progress.advance(task)
    title = (
        f"{options.engine}, {options.dtype}, inputs of {options.size}, batch {options.batch}, "
        f"{options.steps} steps: relative differences from stock"
    )
    Console(width=110).print(table(title, rows))
    return 0 if set(rows.values()) <= {"yes", ""} else 1


if __name__ == "__main__":
    sys.exit(main())
