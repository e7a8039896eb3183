"""Times networks of flax and programs of plain JAX, stock and under `sepconv.patch_jax()`.

    python benchmarks/jax_networks.py
    python benchmarks/jax_networks.py mobilenet convnext --seconds 60

Prints rows of a table. All ways run the same functions on the same arrays, and their results are
compared first; then they take turns (`turns.py`). Each way's program is compiled once, ahead of
time, so that switching the patch costs nothing in between. The column "called" is of networks that
are also written with `sepconv.jax`'s functions.

The networks are those of `flax_networks.py`; the programs besides, of `jax_programs.py`, are those
that people have reported as slow.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax_networks import conformer, convnext, eegnet, mobilenet
from jax_programs import WAYS, Program, dilated, layer, stack
from turns import in_turns

import sepconv

__all__ = ["PROGRAMS", "compare", "difference"]

HEADER = (
    "| program | stock, ms | patched, ms | speed-up | called, ms | served |\n"
    "| --- | --- | --- | --- | --- | --- |"
)

#: A step moves parameters by more than this, in float64, where they have a gradient.
_NOTHING = 1e-9

PROGRAMS: dict[str, Callable[[], Program]] = {
    "mobilenet": mobilenet,
    "convnext": convnext,
    "eegnet": eegnet,
    "conformer": conformer,
    "layer": layer,
    "stack": stack,
    **{f"dilated-{way}": lambda way=way: dilated(way) for way in WAYS},
}


def difference(program: Program) -> float:
    """The largest difference of other ways' results from stock's, relative to each array's largest.

    In float64: in float32 a number beside 0 may be on the other side of a relu6, and with few
    images a gradient differs then by per cents, however it is computed. Of an array whose gradient
    is 0 but for rounding, as a shift before a normalization, what is below `_NOTHING` is alike.
    """

    def precise(array: Any) -> Any:
        floats = jnp.issubdtype(array.dtype, jnp.floating)
        return jnp.asarray(array, "float64") if floats else array

    with jax.enable_x64(True):
        arrays = jax.tree.map(precise, program.arrays)
        expected = jax.tree.leaves(jax.jit(program.function)(*arrays))
        with sepconv.patch_jax():
            others = [jax.tree.leaves(jax.jit(program.function)(*arrays))]
        if program.called:
            others.append(jax.tree.leaves(jax.jit(program.called)(*arrays)))
        largest = 0.0
        for found in others:
            for a, b in zip(expected, found, strict=True):
                a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
                largest = max(largest, float(np.abs(a - b).max() / max(np.abs(a).max(), _NOTHING)))
    return largest


def compare(program: Program, seconds: float, at_least: int = 3) -> tuple[list[list[float]], Any]:
    """Runs a program all ways in turns, each at least so many.

    Returns:
        The seconds of each measured step of stock, of the patch and, where there is one, of the
        program as called; and the patch's record.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        return jax.jit(function).lower(*program.arrays).compile()

    ways = [compiled(program.function)]
    with sepconv.patch_jax() as record:
        ways.append(compiled(program.function))
    if program.called:
        ways.append(compiled(program.called))
    steps = [lambda way=way: jax.block_until_ready(way(*program.arrays)) for way in ways]
    return in_turns(steps, seconds, at_least), record


def main() -> int:
    """Runs the command line above."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("programs", nargs="*", help=f"of {', '.join(PROGRAMS)}; by default all")
    parser.add_argument("--seconds", type=float, default=20, help="how long to measure each")
    options = parser.parse_args()
    unknown = sorted(set(options.programs) - set(PROGRAMS))
    if unknown:
        parser.error(f"the programs are {', '.join(PROGRAMS)}. Received: {', '.join(unknown)}")
    print(
        f"JAX {jax.__version__}; {sepconv.isa_name()}, {sepconv.num_threads()} threads; medians",
        file=sys.stderr,
    )
    print(HEADER)
    for name in options.programs or PROGRAMS:
        program = PROGRAMS[name]()
        apart = difference(program)
        if not apart < 1e-8:
            print(f"{name}: the results differ by {apart:.1e}: not measured", file=sys.stderr)
            return 1
        times, record = compare(program, options.seconds)
        stock, ours, *called = (1e3 * statistics.median(spent) for spent in times)
        columns = (
            name,
            f"{stock:.1f}",
            f"{ours:.1f}",
            f"{stock / ours:.1f}x",
            f"{called[0]:.1f}" if called else "",
            f"{record.served.total()} of {(record.served + record.handed_on).total()}",
        )
        print(f"| {' | '.join(columns)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
