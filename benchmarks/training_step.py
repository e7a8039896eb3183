"""Times one training step of a network, with Keras' own layers and with sepconv's.

    python benchmarks/training_step.py --engine jax --model eegnet
    python benchmarks/training_step.py --engine torch --model mobilenet --dtype bfloat16

Prints a row of the table in docs/performance.md. The networks have the same weights and their
outputs are compared first; then they take turns (`turns.py`). The memory is the peak of a separate
process for each, during steps, once compiled. With `--dtype bfloat16` there are four: either in
float32, and under Keras' policy mixed_bfloat16.
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from turns import in_turns

from sepconv.bench.models import MODELS, with_sepconv

#: Dtype -> Keras' policy of every layer.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
TOLERANCE = 1e-4


class Way(NamedTuple):
    """How a network is computed: with Keras' own layers or with sepconv's, and in which dtype."""

    layers: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.layers}-{self.dtype}"


def ways(dtype: str) -> list[Way]:
    """The ways of a run, the reference first."""
    dtypes = dict.fromkeys(("float32", dtype))
    return [Way(layers, one) for one in dtypes for layers in ("stock", "sepconv")]


def network(way: Way, build: Callable[[], Any], weights: list[Any] | None = None) -> Any:
    """The network, with weights if they are given; those of every policy are float32."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[way.dtype])
    try:
        model = build()
    finally:
        keras.config.set_dtype_policy(before)
    if weights is not None:
        model.set_weights(weights)
    return with_sepconv(model) if way.layers == "sepconv" else model


def compiled(model: Any) -> Any:
    """The model, ready for training steps."""
    import keras

    model.compile(
        keras.optimizers.SGD(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model


def spread(seconds: list[float]) -> str:
    """The median and the quartiles, in milliseconds."""
    low, median, high = (1e3 * q for q in statistics.quantiles(seconds, n=4))
    return f"{median:.1f} ({low:.1f} to {high:.1f})"


def differences(models: dict[Way, Any], x: Any) -> dict[Way, float]:
    """The distances of the outputs from the first network's, relative to it, in the norm."""
    import numpy as np

    # In float64: outputs of untrained networks are as small as 1e-19, whose squares underflow in
    # float32.
    outputs = [np.asarray(model.predict_on_batch(x), np.float64) for model in models.values()]
    size = np.linalg.norm(outputs[0])
    return {
        way: float(np.linalg.norm(y - outputs[0]) / size)
        for way, y in zip(models, outputs, strict=True)
    }


def wrong(apart: dict[Way, float]) -> list[Way]:
    """The ways whose outputs are too far away from stock Keras' in float32.

    In float32 that is a tolerance. In bfloat16 errors grow from layer to layer, for any library:
    sepconv's may be twice stock Keras' in bfloat16.
    """
    bounds = {
        way: TOLERANCE if way.dtype == "float32" else 2 * apart[Way("stock", way.dtype)]
        for way in apart
    }
    return [way for way, distance in apart.items() if not distance <= bounds[way]]


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


def measured_memory(way: Way) -> float:
    """`peak_memory` of a step, from a process of its own, with the options of this one."""
    command = [sys.executable, __file__, *sys.argv[1:], "--way", str(way)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def row(engine: str, model: str, times: dict[Way, list[float]], memory: dict[Way, float]) -> str:
    """The table's heading and the row of a network."""
    medians = {way: statistics.median(seconds) for way, seconds in times.items()}
    stock = [way for way in times if way.layers == "stock"]
    head, cells = ["engine", "network"], [engine, model]
    several = len(times) > 2

    def named(way: Way) -> str:
        return f"{way.layers} {way.dtype}" if several else way.layers

    head += [f"{named(way)}, ms" for way in times]
    cells += [spread(seconds) for seconds in times.values()]
    *_, ours = times
    head.append("over the best stock" if several else "speed-up")
    cells.append(f"{min(medians[way] for way in stock) / medians[ours]:.1f}x")
    if several:
        head.append("over float32")
        cells.append(f"{medians[Way('sepconv', 'float32')] / medians[ours]:.2f}x")
    head += [f"{named(way)}, MB" for way in memory]
    cells += [f"{megabytes:.0f}" for megabytes in memory.values()]
    lines = (head, ["---"] * len(head), cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Runs the command line above."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--engine", choices=("jax", "torch", "tensorflow"), default="jax")
    parser.add_argument("--model", choices=tuple(MODELS), default="eegnet")
    parser.add_argument("--dtype", choices=tuple(POLICIES), default="float32")
    parser.add_argument("--seconds", type=float, default=30, help="how long to measure")
    parser.add_argument(
        "--keep-memory",
        action="store_true",
        help="call keep_memory() of sepconv.jax or sepconv.torch first, for all networks",
    )
    parser.add_argument("--way", help="only print the memory of one, in MB, such as stock-float32")
    options = parser.parse_args()
    if options.keep_memory and options.engine == "tensorflow":
        parser.error("--keep-memory is for JAX and PyTorch")
    os.environ["KERAS_BACKEND"] = options.engine
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    chosen = ways(options.dtype)
    memory = {}
    if options.way is None:  # before this process takes much memory itself
        memory = {way: measured_memory(way) for way in chosen}
    elif options.way not in map(str, chosen):
        parser.error(f"--way must be one of {', '.join(map(str, chosen))}")

    import keras
    import numpy as np

    import sepconv

    if options.keep_memory:
        importlib.import_module(f"sepconv.{options.engine}").keep_memory()
    keras.utils.set_random_seed(0)
    workload = MODELS[options.model]
    x = np.random.default_rng(0).standard_normal((workload.batch, *workload.shape), "float32")
    y = np.arange(workload.batch) % workload.classes
    if options.way is not None:
        way = next(way for way in chosen if str(way) == options.way)
        model = compiled(network(way, workload.build))
        print(peak_memory(lambda: float(model.train_on_batch(x, y))))
        return 0

    weights = workload.build().get_weights()
    models = {way: compiled(network(way, workload.build, weights)) for way in chosen}
    apart = differences(models, x)
    told = ", ".join(f"{way} {distance:.0e}" for way, distance in apart.items())
    if wrong(apart):
        said = (
            f"{told}, relative to the first: not measured, for {', '.join(map(str, wrong(apart)))}"
        )
        print(f"The outputs differ by {said}.", file=sys.stderr)
        return 1

    steps = [lambda model=model: float(model.train_on_batch(x, y)) for model in models.values()]
    times = dict(zip(models, in_turns(steps, options.seconds, at_least=5), strict=True))
    print(
        f"{options.model}, batch {workload.batch}, on {options.engine} with Keras "
        f"{keras.__version__}; {sepconv.isa_name()}, {sepconv.num_threads()} threads; "
        f"outputs apart by {told}; {len(times[chosen[0]])} steps, median (quartiles)",
        file=sys.stderr,
    )
    print(row(options.engine, options.model, times, memory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
