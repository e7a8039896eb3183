"""What the steps of an int8 network say themselves of the scales of their values: ratios of them.

A step multiplies by ratios of scales: of a sum's to its summands', and so on. The scales themselves
are known at the ends, where floats become bytes and back. Weights say nothing, for theirs are free.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sepconv.program.network import Step
from sepconv.program.shapes import Shape

__all__ = ["Ratio", "said_ratios", "size_of"]


class Ratio(NamedTuple):
    """That one value's scale is so many times another's.

    Attributes:
        first: the number of the value; None for the scale 1.
        second: likewise.
        times: how many times `second`'s scale the first's is; above 0.
    """

    first: int | None
    second: int | None
    times: float


def said_ratios(step: Step, y: int, sizes: Sequence[Shape]) -> Iterator[Ratio]:
    """What a step says of the scales of its value `y` and of its inputs.

    Args:
        step: which gives bytes, or dequantizes.
        y: the number of its value.
        sizes: the shapes of all values.

    Raises:
        ValueError: it takes a mean over sizes that are open.

    Example:
        >>> step = Step("quantize", "begin", [0], {"multiplier": 4.0, "zero_point": 3})
        >>> list(said_ratios(step, 1, []))
        [Ratio(first=None, second=1, times=4.0)]
    """
    for ratio in _said(step, y, sizes):
        # Of nothing, no scale follows.
        if ratio.times:
            yield ratio._replace(times=abs(ratio.times))


def _said(step: Step, y: int, sizes: Sequence[Shape]) -> Iterator[Ratio]:
    given, (x, *others) = step.attributes, step.inputs or [y]
    if step.operation == "quantize":
        yield Ratio(None, y, given["multiplier"])
    elif step.operation == "dequantize":
        yield Ratio(x, None, given["scale"])
    elif step.operation == "quantized_mean":
        yield Ratio(x, y, given["scale"] * size_of(step, sizes[x]))
    elif step.operation == "quantized_average_pool":
        yield Ratio(x, y, given["scale"])
    elif step.operation == "quantized_binary":
        if given["function"] == "add":
            yield Ratio(x, y, given["a_scale"])
            yield Ratio(others[0], y, given["b_scale"])
    elif step.operation == "quantized_convolution":
        if others and "table" not in step.weights:
            yield Ratio(others[0], y, given["residual_scale"])
    elif step.operation not in ("quantized_dense", "lookup"):
        for each in step.inputs:
            yield Ratio(each, y, 1.0)


def size_of(step: Step, x: Shape) -> int:
    """Of how many numbers a step takes the mean.

    Raises:
        ValueError: that is open.
    """
    sizes = [x[axis] for axis in step.attributes["axes"]]
    if None in sizes:
        raise ValueError(
            f"The step {step.name!r} ({step.operation}) takes a mean over sizes that are open, "
            f"which has no scale. Received: inputs of the shape {x}, axes="
            f"{tuple(step.attributes['axes'])}"
        )
    return math.prod(size for size in sizes if size is not None)
