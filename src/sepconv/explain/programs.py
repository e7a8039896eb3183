"""A program's steps, each with its work, its floor and its measured time."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sepconv import _native
from sepconv.bench.roofline import Machine, measure_peak
from sepconv.program.network import INT8_PRODUCTS

__all__ = ["ProgramExplanation", "StepRow", "example_inputs", "explain_program"]


class StepRow(NamedTuple):
    """A step of a program.

    Attributes:
        name: of the layer that it was.
        operation: its kind.
        shape: of its output.
        multiply_adds: of its convolution or product, else 0.
        weight_bytes: of its weights.
        floor: seconds that its multiply-adds take at least on this machine, in int8 where the
            step is one of int8.
        seconds: what it took, as a part of the whole; the median of several runs.
        plan: how it went, in a few words.
    """

    name: str
    operation: str
    shape: tuple[int, ...]
    multiply_adds: int
    weight_bytes: int
    floor: float
    seconds: float
    plan: str


class ProgramExplanation(NamedTuple):
    """What `explain_program` found.

    Attributes:
        name: the program's, as the reader knows it.
        rows: a row a step, in the order of computing.
        input_shapes: what it ran on.
        seconds: one call; the median of several.
        threads: the bound on threads.
        level: the instruction-set level.
        memory: bytes of weights, of a call, and of a call if every step had memory of its own.
    """

    name: str
    rows: list[StepRow]
    input_shapes: list[tuple[int, ...]]
    seconds: float
    threads: int
    level: str
    memory: Any


def example_inputs(
    program: Any, batch: int | None = None, size: Sequence[int] | None = None
) -> list[np.ndarray]:
    """Arrays of standard normal numbers that a program takes.

    Args:
        program: a `sepconv.program.program.Program`.
        batch: the first size, where it is open; 1 without.
        size: the other open ones of an input, in their order; the last stands for those after it.

    Raises:
        ValueError: the program takes no such batch.
    """
    draw, arrays = np.random.default_rng(0), []
    for each in program.inputs:
        sizes = iter(() if size is None else size)
        last, shape = 64 if size is None else size[-1], []
        for axis, given in enumerate(each.shape):
            if axis == 0 and given not in (None, batch) and batch is not None:
                raise ValueError(f"the input {each.name} has a batch of {given}, not of {batch}")
            if given is None:
                given = (batch or 1) if axis == 0 else next(sizes, last)
            shape.append(given)
        arrays.append(draw.standard_normal(shape).astype(program.dtype))
    return arrays


def explain_program(
    name: str, program: Any, arrays: list[np.ndarray], machine: Machine, seconds: float = 1.0
) -> ProgramExplanation:
    """Explains a program.

    Args:
        name: what to call it.
        program: a `sepconv.program.program.Program`.
        arrays: what to run it on.
        machine: the limits to compare with; those of int8 are measured here, where steps are of it.
        seconds: how long to measure, of whole calls and of steps each.

    Raises:
        ValueError: the program does not take such arrays.
    """
    program(*arrays)
    calls: list[float] = []
    profiles: list[Any] = []
    begun = time.perf_counter()
    while len(calls) < 5 or time.perf_counter() - begun < 2 * seconds:
        start = time.perf_counter()
        program(*arrays)
        calls.append(time.perf_counter() - start)
        profiles.append(program.profile(*arrays))
    rows, peaks = [], {False: machine.peak}
    if any(report.operation in INT8_PRODUCTS for report in profiles[0]):
        peaks[True] = measure_peak(machine.threads, min(max(seconds, 0.01), 0.3), "int8")
    for reports in zip(*profiles, strict=True):
        one = reports[0]
        # Two operations a multiply-add.
        floor = 2 * one.multiply_adds / peaks[one.operation in INT8_PRODUCTS]
        median = statistics.median(report.seconds for report in reports)
        rows.append(
            StepRow(
                one.name,
                one.operation,
                one.shape,
                one.multiply_adds,
                one.weight_bytes,
                floor,
                median,
                one.plan,
            )
        )
    shapes = [array.shape for array in arrays]
    return ProgramExplanation(
        name,
        rows,
        shapes,
        statistics.median(calls),
        _native.num_threads(),
        _native.isa_name(),
        program.memory(*shapes),
    )


def sums(rows: Sequence[StepRow]) -> tuple[int, int, float, float]:
    """The multiply-adds, bytes of weights, floors and times of rows together."""
    return (
        sum(row.multiply_adds for row in rows),
        sum(row.weight_bytes for row in rows),
        math.fsum(row.floor for row in rows),
        math.fsum(row.seconds for row in rows),
    )
