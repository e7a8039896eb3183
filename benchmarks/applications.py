"""Compares keras.applications' networks, patched and accelerated, with Keras' own computation.

    python benchmarks/applications.py --engine jax
    python benchmarks/applications.py --engine jax --weights keras --dtype float64

Prints a row for `patch_keras` and one for `accelerate` for every network: how far predictions, the
gradients of one training step, and the losses over some steps of training are from stock Keras'.
Exits with 1 where a distance is above its bound.

Float32 alone may cause that: a rounding that takes one input in 1e5 over the kink of a relu changes
gradients by the root of that, 3e-3. So where a distance from stock is too large, stock Keras
computes in float64, too, and a row shows the distance of stock's float32 from that. The last column
is "no: stock is off" if we are within the bounds of float64, "no, nor is stock" if our distance
from it is at most twice stock's, and "NO" if it is more, which is a fault. With ``--dtype float64``
both compute in float64, which leaves the differences of the computation, without roundings.

Weights are random and seeded. By default kernels have He's variance for what each output sums over
and batch normalisation has the statistics of a batch, varied by a fifth, so that signals keep their
size from layer to layer, as in trained networks; its offsets are between 1 and 2 deviations, so
that nine of ten signals pass a relu. Without that, random networks are chaotic: what goes in at
the last bit grows by a factor a layer, to 1e-5 of the predictions. With ``--weights keras`` all
stay as Keras initialises them. For depthwise kernels that is too small by the root of the
channels, signals fall below batch normalisation's epsilon, and the first steps of training amplify
roundings even more: stock's own gradients are off by up to 1e-2. Float64 is the fair comparison
there, and predictions, which batch normalisation does not touch yet, are fair in float32, too.

The optimizer is SGD with momentum 0.9 and gradients clipped to a norm of 1. There is no dropout:
its random numbers differ between dtypes.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from networks import NETWORKS

SMALLEST = {"Xception": 71}
#: Takes pictures of 0 to 255, others of -1 to 1.
UNSCALED = ("EfficientNetB0",)
CLASSES = 10

#: Bounds of the relative distances of predictions, gradients and losses from stock's.
BOUNDS = (1e-5, 1e-4, 1e-3)


class Run(NamedTuple):
    """The results of one way of computing: predictions, gradients, losses."""

    predictions: Any
    gradients: Any
    losses: Any


class Row(NamedTuple):
    """A network computed in one way: its distances from another, and its first and last loss."""

    network: str
    way: str
    distances: tuple[float, float, float]
    losses: tuple[float, float]
    near: str


def relative(received: Any, expected: Any) -> float:
    """The distance of two arrays relative to the second's norm."""
    import numpy as np

    expected = np.asarray(expected, "float64")
    return float(np.linalg.norm(received - expected) / np.linalg.norm(expected))


def prepare(model: Any, x: Any) -> None:
    """Random weights that carry signals through; batch normalisation has the statistics of `x`."""
    import keras
    import numpy as np

    random = np.random.default_rng(0)

    def vary(variable: Any, low: float, high: float, values: Any = 1.0) -> None:
        values = values * random.uniform(low, high, variable.shape)
        variable.assign(values.astype(variable.dtype))

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
        if layer.scale:
            vary(layer.gamma, 0.8, 1.2)
        if layer.center:
            vary(layer.beta, 1.0, 2.0)
    model(x, training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        for variable in (layer.moving_mean, layer.moving_variance):
            vary(variable, 0.8, 1.2, keras.ops.convert_to_numpy(variable))


def compiled(model: Any, rate: float) -> Any:
    """The model, with a new optimizer."""
    import keras

    optimizer = keras.optimizers.SGD(rate, momentum=0.9, global_clipnorm=1.0)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def run(model: Any, x: Any, y: Any, options: argparse.Namespace) -> Run:
    """Predicts, then trains; the model is left trained."""
    import keras
    import numpy as np

    predictions = np.asarray(model.predict_on_batch(x), "float64")
    compiled(without_dropout(model), options.rate)
    losses, gradients = [], None
    for _ in range(options.steps):
        losses.append(float(model.train_on_batch(x, y)))
        if gradients is None:
            # After one step the momenta are the gradients up to a factor. Variables 0 and 1 are the
            # number of steps and the rate.
            momenta = model.optimizer.variables[2:]
            gradients = np.concatenate(
                [np.ravel(keras.ops.convert_to_numpy(m)) for m in momenta]
            ).astype("float64")
    return Run(predictions, gradients, np.asarray(losses))


def distances(received: Run, expected: Run) -> tuple[float, float, float]:
    """The distances of predictions, gradients and losses."""
    import numpy as np

    return (
        relative(received.predictions, expected.predictions),
        relative(received.gradients, expected.gradients),
        float(np.max(np.abs(received.losses / expected.losses - 1))),
    )


def within(apart: tuple[float, ...], bounds: tuple[float, ...] = BOUNDS) -> bool:
    """Whether no distance is above its bound, nor not a number."""
    return all(distance <= bound for distance, bound in zip(apart, bounds, strict=True))


def build(network: str, size: int) -> Any:
    """A network of stock Keras, in Keras' current dtype."""
    import keras

    make = getattr(keras.applications, network)
    if "V3" in network:
        make = functools.partial(make, include_preprocessing=False)
    if network == "NASNetMobile" and keras.backend.backend() == "torch":
        # Keras' public function refuses this backend for "an outstanding bug"; the function that it
        # calls does not.
        from keras.src.applications.nasnet import NASNet

        settings = {"penultimate_filters": 1056, "num_blocks": 4, "stem_block_filters": 32}
        settings |= {"skip_reduction": False, "filter_multiplier": 2, "default_size": 224}
        make = functools.partial(NASNet, **settings)
    shape = size, size, 3
    return make(weights=None, input_shape=shape, classes=CLASSES, classifier_activation=None)


def without_dropout(model: Any) -> Any:
    """The model, with dropout switched off."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return model


@contextlib.contextmanager
def computing_in(dtype: str) -> Iterator[None]:
    """A context in which new layers, losses and optimizers compute in a dtype."""
    import keras
    from keras.src.backend.common import dtypes

    before = keras.config.floatx(), dtypes.BIT64_TO_BIT32_DTYPE["float64"]
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    # On JAX and PyTorch, Keras takes float64 for float32 in batch normalisation.
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[0])
        dtypes.BIT64_TO_BIT32_DTYPE["float64"] = before[1]


def compare(network: str, options: argparse.Namespace) -> Iterator[Row]:
    """The rows of one network."""
    import keras
    import numpy as np

    import sepconv

    size = max(options.size, SMALLEST.get(network, options.size))
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).uniform(-1, 1, (options.batch, size, size, 3)).astype("float32")
    if network in UNSCALED:
        x = 127.5 * (x + 1)
    y = np.arange(options.batch) % CLASSES
    with computing_in(options.dtype):
        stock = build(network, size)
        if options.weights == "he":
            prepare(stock, x)
        accelerated, record = sepconv.accelerate(stock)
        assert record.changed == len(record) > 0, record
        start = [keras.ops.convert_to_numpy(variable) for variable in stock.variables]
        expected = run(stock, x, y, options)
        # Predictions come first: the patch must also work for a compiled model.
        restart(stock, start)
        found = {}
        with sepconv.patch_keras():
            found["patched"] = run(stock, x, y, options)
        found["accelerated"] = run(accelerated, x, y, options)
    good = all(within(distances(received, expected)) for received in found.values())
    exact = allowed = None
    if not good and options.dtype != "float64":
        with computing_in("float64"):
            exact = run(restart(build(network, size), start), x, y, options)
        allowed = distances(expected, exact)
    for way, received in found.items():
        apart, near = distances(received, expected), "yes"
        if not within(apart):
            near = "NO"
            if exact is not None and allowed is not None:
                near = verdict(apart, distances(received, exact), allowed)
        yield Row(network, way, apart, ends(received), near)
        if exact is not None:
            yield Row(network, f"{way} to float64", distances(received, exact), ends(exact), "")
    if exact is not None and allowed is not None:
        yield Row(network, "stock to float64", allowed, ends(exact), "")


def verdict(apart: tuple[float, ...], error: tuple[float, ...], allowed: tuple[float, ...]) -> str:
    """Why a distance from stock is too large: float32, or a fault."""
    for distance, bound, ours, stock in zip(apart, BOUNDS, error, allowed, strict=True):
        if not distance <= bound and not ours <= 2 * stock:
            return "NO"
    return "no: stock is off" if within(error) else "no, nor is stock"


def ends(received: Run) -> tuple[float, float]:
    """The first and the last loss."""
    return float(received.losses[0]), float(received.losses[-1])


def restart(model: Any, start: list[Any]) -> Any:
    """The model, with its variables set to their start values."""
    for variable, values in zip(model.variables, start, strict=True):
        variable.assign(values)
    return model


def table(title: str, rows: list[Row]) -> Any:
    """The rows as a table of rich's."""
    from rich.table import Table

    made = Table(title=title)
    for heading in ("network", "way", "predictions", "gradients", "losses", "loss", "near"):
        made.add_column(heading)
    for row in rows:
        loss = "{:.3f} to {:.3f}".format(*row.losses)
        made.add_row(row.network, row.way, *(f"{d:.1e}" for d in row.distances), loss, row.near)
    return made


def main() -> int:
    """Runs the command line above."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--engine", choices=("jax", "torch", "tensorflow"), default="jax")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--size", type=int, default=64, help="height and width of the input")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20, help="of training")
    parser.add_argument("--weights", choices=("he", "keras"), default="he")
    parser.add_argument("--rate", type=float, default=1e-3, help="of the optimizer")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    options = parser.parse_args()
    os.environ["KERAS_BACKEND"] = options.engine
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    if options.engine == "jax":
        os.environ["JAX_ENABLE_X64"] = "1"
    from rich.console import Console
    from rich.progress import Progress

    rows: list[Row] = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(options.engine, total=len(options.networks))
        for network in options.networks:
            progress.update(task, description=f"{network} on {options.engine}")
            rows += compare(network, options)
            progress.advance(task)
    title = (
        f"{options.engine}, {options.dtype}, {options.weights} weights, size {options.size}, batch "
        f"{options.batch}, {options.steps} steps: distances from stock"
    )
    Console(width=110).print(table(title, rows))
    return 0 if {row.near for row in rows} <= {"yes", ""} else 1


if __name__ == "__main__":
    sys.exit(main())
