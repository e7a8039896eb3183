"""Times one training step of a network, with Keras' own layers and with sepconv's.

    python benchmarks/training_step.py --engine jax --model eegnet

Prints a row of the table in docs/performance.md. The two networks have the same weights and their
outputs are compared first; then they take turns, so that whatever else the machine does meets both.
The memory is the peak of a separate process for each, during steps, once compiled.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sepconv.bench.models import MODELS, with_sepconv

HEADER = (
    "| engine | network | stock, ms | sepconv, ms | speed-up | stock, MB | sepconv, MB |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)
WAYS = ("stock", "sepconv")


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
    """The distance of the two networks' outputs relative to stock's, in the norm."""
    import numpy as np

    # In float64: outputs of untrained networks are as small as 1e-19, whose squares underflow in
    # float32.
    expected = np.asarray(stock.predict_on_batch(x), np.float64)
    received = np.asarray(ours.predict_on_batch(x), np.float64)
    return float(np.linalg.norm(received - expected) / np.linalg.norm(expected))


def peak_memory(step: Callable[[], Any]) -> float:
    """The most memory, in MB, that this process holds during a step, after two to warm up."""
    for _ in range(2):
        step()
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():  # not Linux: the peak of the whole process, compiling included
        step()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1e6 if sys.platform == "darwin" else 1e3)
    reset.write_text("5")
    step()
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return float(line.split()[1]) / 1e3


def measured_memory(way: str) -> float:
    """`peak_memory` of a step, from a process of its own, with the options of this one."""
    command = [sys.executable, __file__, *sys.argv[1:], "--way", way]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    """Runs the command line above."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--engine", choices=("jax", "torch", "tensorflow"), default="jax")
    parser.add_argument("--model", choices=tuple(MODELS), default="eegnet")
    parser.add_argument("--seconds", type=float, default=30, help="how long to measure")
    parser.add_argument(
        "--keep-memory",
        action="store_true",
        help="call sepconv.jax.keep_memory() first, for both networks",
    )
    parser.add_argument("--way", choices=WAYS, help="only print the memory of one, in MB")
    options = parser.parse_args()
    if options.keep_memory and options.engine != "jax":
        parser.error("--keep-memory is for JAX")
    os.environ["KERAS_BACKEND"] = options.engine
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    memory = []
    if options.way is None:  # before this process takes much memory itself
        memory = [measured_memory(way) for way in WAYS]

    import keras
    import numpy as np

    import sepconv

    if options.keep_memory:
        import sepconv.jax

        sepconv.jax.keep_memory()
    keras.utils.set_random_seed(0)
    workload = MODELS[options.model]
    x = np.random.default_rng(0).standard_normal((workload.batch, *workload.shape), "float32")
    y = np.arange(workload.batch) % workload.classes
    stock = workload.build()
    if options.way is not None:
        model = compiled(stock if options.way == "stock" else with_sepconv(stock))
        print(peak_memory(lambda: float(model.train_on_batch(x, y))))
        return 0

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
    held = " | ".join(f"{megabytes:.0f}" for megabytes in memory)
    print(
        f"| {options.engine} | {options.model} | {spread(theirs)} | {spread(mine)} | {ratio:.1f}x "
        f"| {held} |"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
