"""Measures the speed-up of two threads over one, on every layer longer than a millisecond.

    python benchmarks/threads.py                      # batch 1 and 8, forward and training
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
from sepconv.bench.cases import Arrays, inputs_of
from sepconv.bench.peers import BuiltCase
from sepconv.bench.peers.ours import Ours
from sepconv.bench.workloads import select


def seconds(work: Callable[[], Any], threads: int) -> float:
    """The time of one call."""
    sepconv.set_num_threads(threads)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def results(prepared: BuiltCase, threads: int) -> Arrays:
    """Copies of a call's results."""
    sepconv.set_num_threads(threads)
    return {name: array.copy() for name, array in prepared.outputs(prepared.run()).items()}


def main() -> int:
    """Runs the command line above."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--threads", type=int, default=2, help="how many, against one")
    parser.add_argument("--batch", default="1,8", help="batch sizes")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each")
    options = parser.parse_args()
    ours = Ours(options.threads)
    batches = tuple(int(n) for n in options.batch.split(","))
    chosen = select(modes="separable,separable-training", batches=batches)
    rows = []
    for case in track(chosen, "measuring", console=Console(stderr=True)):
        *_, build = ours.builds(case, inputs_of(case), thorough=False).values()
        prepared = build()
        alone, together = (results(prepared, threads) for threads in (1, options.threads))
        if not all(np.array_equal(alone[name], together[name]) for name in alone):
            print(f"{case}: other results with {options.threads} threads", file=sys.stderr)
            return 1
        one, several = [], []
        for _ in range(options.rounds):
            one.append(seconds(prepared.run, 1))
            several.append(seconds(prepared.run, options.threads))
        if statistics.median(one) >= 1e-3:
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
