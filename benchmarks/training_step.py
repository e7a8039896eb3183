"""Times one training step of a network, with Keras' own layers and with sepconv's.

    python benchmarks/training_step.py --engine jax --model eegnet

Prints a row of the table in docs/performance.md. The two networks have the same weights and their
outputs are compared first; then they take turns, so that whatever else the machine does meets both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

HEADER = (
    "| engine | network | stock, ms | sepconv, ms | speed-up |\n| --- | --- | --- | --- | --- |"
)


def compiled(model: Any) -> Any:
    """The model, ready for training steps."""
    import keras

    model.compile(
        keras.optimizers.SGD(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model


def alternate(
    steps: tuple[Callable[[], Any], ...], seconds: float, at_least: int
) -> list[list[float]]:
    """Runs the steps in turns and returns the seconds of each, without the first two turns."""
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(2):
        for step in steps:
            step()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < at_least:
        for step, spent in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            spent.append(time.perf_counter() - start)
    return times


def spread(seconds: list[float]) -> str:
    """The median and the quartiles, in milliseconds."""
    low, median, high = (1e3 * q for q in statistics.quantiles(seconds, n=4))
    return f"{median:.1f} ({low:.1f} to {high:.1f})"


def relative_difference(stock: Any, ours: Any, x: Any) -> float:
    """How far the two networks' outputs are apart, relative to stock's, in norm."""
    import numpy as np

    expected = np.asarray(stock.predict_on_batch(x))
    received = np.asarray(ours.predict_on_batch(x))
    return float(np.linalg.norm(received - expected) / np.linalg.norm(expected))


def main() -> int:
    """Runs the command line above."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--engine", choices=("jax", "torch", "tensorflow"), default="jax")
    parser.add_argument("--model", choices=("eegnet", "mobilenet"), default="eegnet")
    parser.add_argument("--seconds", type=float, default=30, help="how long to measure")
    options = parser.parse_args()
    os.environ["KERAS_BACKEND"] = options.engine
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    import keras
    import numpy as np

    import sepconv
    from sepconv.bench.models import MODELS, with_sepconv

    keras.utils.set_random_seed(0)
    workload = MODELS[options.model]
    x = np.random.default_rng(0).standard_normal((workload.batch, *workload.shape), "float32")
    y = np.arange(workload.batch) % workload.classes
    stock = workload.build()
    ours = compiled(with_sepconv(stock))
    stock = compiled(stock)
    difference = relative_difference(stock, ours, x)
    if not difference < 1e-4:
        print(f"The outputs differ by {difference:.1e}, relative: not measured.", file=sys.stderr)
        return 1

    steps = tuple(lambda model=model: float(model.train_on_batch(x, y)) for model in (stock, ours))
    theirs, mine = alternate(steps, options.seconds, at_least=5)
    print(
        f"{options.model}, batch {workload.batch}, on {options.engine} with Keras "
        f"{keras.__version__}; {sepconv.isa_name()}, {sepconv.num_threads()} threads; "
        f"outputs equal to {difference:.0e}; {len(mine)} steps each, median (quartiles)",
        file=sys.stderr,
    )
    print(HEADER, file=sys.stderr)
    ratio = statistics.median(theirs) / statistics.median(mine)
    print(
        f"| {options.engine} | {options.model} | {spread(theirs)} | {spread(mine)} | {ratio:.1f}x |"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
