"""Every kernel that can compute a layer's forward pass, timed beside the one that is chosen.

    python benchmarks/candidates.py                                  # one layer of each kind
    python benchmarks/candidates.py --workloads 'mobilenet_v*' --batch 1 --threads 2
    python benchmarks/candidates.py --workloads '*' --worse 1.1      # only what could be better

A layer is one of `sepconv bench`. Of its depthwise step alone each kernel is a candidate, of its
separable convolution each schedule: two steps, tiles that go through both, or parts of small images
that do. Those that can serve the layer take turns, round after round; the median of the rounds
counts. What differs from the choice's time by chance is seen in a second run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sepconv import _native
from sepconv.bench.workloads import Case, select
from sepconv.geometry import conv_spec, resolve

CHOSEN = ("none", "chosen")
CANDIDATES = {
    "depthwise": [(kernel, "chosen") for kernel in ("flat", "planar", "small", "channelwise")],
    "separable": [("none", schedule) for schedule in ("steps", "tiles", "parts")],
}
_F32 = 0


class Timed(NamedTuple):
    """One candidate of one layer."""

    name: str
    tasks: int  # of the first step
    chosen: bool
    seconds: float


def _name(case: Case, plan: Any) -> str:
    """The kernel or the schedule that a plan has taken."""
    first = plan["steps"][0]
    if case.operation == "depthwise":
        return first["kernel"]
    return "steps" if first["kind"] == "depthwise" else first["kind"].removeprefix("fused_")


def candidates(case: Case, geometry: Any, threads: int) -> dict[str, tuple[tuple[str, str], int]]:
    """Name -> what asks for it, and its tasks; the chosen one first."""
    filters = (case.workload.filters or 0) if case.operation == "separable" else 0
    found: dict[str, tuple[tuple[str, str], int]] = {}
    for overrule in (CHOSEN, *CANDIDATES[case.operation]):
        plan = _native.plan(geometry, _F32, "forward", threads, filters, overrule=overrule)
        # What cannot serve the layer is not taken, and the plan is that of the choice again.
        found.setdefault(_name(case, plan), (overrule, plan["steps"][0]["tasks"]))
    return found


def _runner(case: Case, geometry: Any) -> Callable[[tuple[str, str]], None]:
    """A function that runs the layer as it is asked to."""
    rng = np.random.default_rng(0)
    workload, filters = case.workload, case.output_channels

    def random(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype("float32")

    x, kernel = random(*workload.x_shape(case.batch)), random(*workload.kernel_shape)
    y = np.empty(geometry.output_shape(filters), "float32")
    mixing, mixed = None, 0
    if case.operation == "separable":
        mixing, mixed = random(workload.middle, filters), filters

    def run(overrule: tuple[str, str]) -> None:
        operands = (x, kernel, None, mixing, None, None, y, mixed, 0, 0)
        _native.forward(geometry, _F32, *operands, overrule)

    return run


def measure(case: Case, threads: int, rounds: int) -> list[Timed]:
    """The candidates of a layer, the chosen one first."""
    workload = case.workload
    spec = conv_spec(workload.strides, workload.padding, workload.dilation)
    geometry = resolve(spec, workload.x_shape(case.batch), workload.kernel_shape)
    run, found = _runner(case, geometry), candidates(case, geometry, threads)
    samples: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds + 1):
        for name, (overrule, _) in found.items():
            start, runs = time.perf_counter(), 0
            while (spent := time.perf_counter() - start) < 0.005 or runs < 2:
                run(overrule)
                runs += 1
            samples[name].append(spent / runs)
    # The first round warms up.
    return [
        Timed(name, tasks, overrule == CHOSEN, statistics.median(samples[name][1:]))
        for name, (overrule, tasks) in found.items()
    ]


def main() -> int:
    """Times what the command line asks for, and prints it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", help="patterns of names, separated by commas")
    parser.add_argument("--batch", type=int, help="images at a time (default: each layer's own)")
    parser.add_argument("--threads", type=int, default=_native.num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--worse",
        type=float,
        default=0.0,
        help="only layers whose choice takes so many times as long",
    )
    options = parser.parse_args()
    _native.set_num_threads(options.threads)
    cases = select(
        options.workloads,
        "depthwise,separable",
        None if options.batch is None else (options.batch,),
        quick=options.workloads is None,
    )
    worst = 0.0
    for case in cases:
        found = measure(case, options.threads, options.rounds)
        best = min(found, key=lambda timed: timed.seconds)
        lost = found[0].seconds / best.seconds
        worst = max(worst, lost)
        if lost < options.worse or len(found) == 1:
            continue
        print(f"{case.workload.name}, batch {case.batch}, {case.mode}")
        for timed in found:
            mark = "chosen" if timed.chosen else ""
            ratio = timed.seconds / found[0].seconds
            print(
                f"  {timed.name:12s} {timed.tasks:6d} tasks {1e6 * timed.seconds:10.1f} us "
                f"{ratio:6.2f} {mark}"
            )
    print(f"The worst choice takes {worst:.2f} times as long as its best candidate.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
