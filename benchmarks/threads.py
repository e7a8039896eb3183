"""How much faster two threads are than one, on every layer that takes longer than a millisecond.

    python benchmarks/threads.py                      # batch 1 and 8, forward and all gradients
    python benchmarks/threads.py --threads 4 --batch 1

One thread and several take turns in one process, on NumPy arrays; results must be the same to the
bit. Prints a row for each layer, the smallest speed-up last.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import sepconv
from sepconv.bench.workloads import Case, select


def work_of(case: Case) -> Callable[[], Any]:
    """What to time of a case: forward, or all gradients."""
    w = case.workload
    rng = np.random.default_rng(0)
    x, kernel, pointwise = (
        rng.standard_normal(shape, np.float32)
        for shape in (w.x_shape(case.batch), w.kernel_shape, (1, 1, w.middle, case.output_channels))
    )
    options: dict[str, Any] = {
        "strides": w.strides,
        "padding": w.padding,
        "dilation_rate": w.dilation,
    }
    if not case.training:
        return lambda: sepconv.separable_conv2d(x, kernel, pointwise, **options)
    dy = rng.standard_normal((case.batch, *w.output_size, case.output_channels), np.float32)
    return lambda: sepconv.separable_conv2d_grad(x, kernel, pointwise, dy, **options)


def seconds(work: Callable[[], Any], threads: int) -> float:
    """The time of one call."""
    sepconv.set_num_threads(threads)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def same(a: Any, b: Any) -> bool:
    """Whether results are equal to the bit."""
    pairs = zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)]
    return all(p is q is None or np.array_equal(p, q) for p, q in pairs)


def main() -> int:
    """Runs the command line above."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--threads", type=int, default=2, help="how many, against one")
    parser.add_argument("--batch", default="1,8", help="batch sizes")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each")
    options = parser.parse_args()
    batches = tuple(int(n) for n in options.batch.split(","))
    chosen = select(modes="separable,separable-training", batches=batches)
    rows = []
    for case in track(chosen, "measuring", console=Console(stderr=True)):
        work = work_of(case)
        alone = min(seconds(work, 1) for _ in range(2))
        if alone < 1e-3:
            continue
        sepconv.set_num_threads(1)
        expected = work()
        sepconv.set_num_threads(options.threads)
        if not same(expected, work()):
            print(f"{case}: other results with {options.threads} threads", file=sys.stderr)
            return 1
        one, several = [], []
        for _ in range(options.rounds):
            one.append(seconds(work, 1))
            several.append(seconds(work, options.threads))
        rows.append((statistics.median(one), statistics.median(several), case))
    table = Table("layer", "mode", "batch", "1, ms", f"{options.threads}, ms", "speed-up")
    rows.sort(key=lambda row: row[1] / row[0])
    for one_thread, all_threads, case in rows:
        table.add_row(
            case.workload.name,
            case.mode,
            str(case.batch),
            f"{1e3 * one_thread:.2f}",
            f"{1e3 * all_threads:.2f}",
            f"{one_thread / all_threads:.2f}x",
        )
    Console(width=120).print(table)
    gains = [one_thread / all_threads for one_thread, all_threads, _ in rows]
    reached = sum(gain >= 0.9 * options.threads for gain in gains)
    print(
        f"{len(gains)} layers, median {statistics.median(gains):.2f}x, least {min(gains):.2f}x; "
        f"{reached} of them at least {0.9 * options.threads:.1f}x; results the same to the bit"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
