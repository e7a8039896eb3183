"""The scale of every value of bytes of an int8 network.

Steps say the ratios of scales: of a sum's to its summands', and so on. The scales themselves are
known at the ends, and where a step holds its `unit`, as those of `sepconv.quantize` do. Where
neither says anything, any scale computes the same, and 1 is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sepconv.program.dtypes import value_dtypes
from sepconv.program.network import Network, Step
from sepconv.program.shapes import Shape, shapes

__all__ = ["rounding_scale", "scales_of", "size_of"]


class _Ratios:
    """Numbers of which ratios are known: sets of them, each with one that the others are told by.

    All are logarithms. The last one is 0: what stands beside it is known.
    """

    def __init__(self, count: int) -> None:
        self._parents = list(range(count + 1))
        self._apart = [0.0] * (count + 1)
        self.one = count

    def find(self, i: int) -> tuple[int, float]:
        """The one that `i` is told by, and how far `i` is above it."""
        path, above = [], 0.0
        while self._parents[i] != i:
            path.append(i)
            i = self._parents[i]
        for each in reversed(path):
            above += self._apart[each]
            self._parents[each], self._apart[each] = i, above
        return i, above

    def say(self, i: int, j: int, above: float) -> None:
        """Says that `i` is so far above `j`, unless something else was said before."""
        (a, over_a), (b, over_b) = self.find(i), self.find(j)
        if a == b:
            return
        if a == self.one:
            a, b, over_a, over_b, above = b, a, over_b, over_a, -above
        self._parents[a], self._apart[a] = b, above + over_b - over_a

    def of(self, i: int) -> float:
        """How large `i` is; 0 from now on where nothing was said."""
        self.say(self.find(i)[0], self.one, 0.0)
        return self.find(i)[1]


def scales_of(network: Network) -> dict[int, float]:
    """The scales of all values of bytes, by their numbers.

    Raises:
        ValueError: a step does not fit its inputs, or takes a mean over sizes that are open.

    Example:
        >>> from sepconv.program.network import Input
        >>> steps = [Step("quantize", "begin", [0], {"multiplier": 4.0, "zero_point": 3}),
        ...          Step("reshape", "rows", [1], {"shape": [0, -1]})]
        >>> scales_of(Network("float32", [Input("x", (None, 2, 3))], steps, [], [], []))
        {1: 0.25, 2: 0.25}
    """
    dtypes, sizes, first = value_dtypes(network), shapes(network), len(network.inputs)
    ratios = _Ratios(len(dtypes))
    for i, step in enumerate(network.steps):
        if dtypes[first + i] == "uint8" or step.operation == "dequantize":
            _read(ratios, network, step, first + i, sizes)
    for i, step in enumerate(network.steps):
        if step.operation == "quantized_binary" and step.attributes["function"] == "multiply":
            a, b = (ratios.of(value) for value in step.inputs)
            ratio = abs(step.attributes["a_scale"]) or 1.0
            ratios.say(first + i, ratios.one, a + b - math.log(ratio))
    bytes_ = [value for value, dtype in enumerate(dtypes) if dtype == "uint8"]
    return {value: float(np.float32(math.exp(ratios.of(value)))) for value in bytes_}


def _read(ratios: _Ratios, network: Network, step: Step, y: int, sizes: Sequence[Shape]) -> None:
    """Takes down what a step says of its value's and its inputs' scales."""

    def say(i: int, j: int, ratio: Any) -> None:
        # Of nothing, no scale follows.
        if ratio != 0:
            ratios.say(i, j, math.log(abs(ratio)))

    given, (x, *others) = step.attributes, step.inputs or [y]
    if step.operation == "quantize":
        say(ratios.one, y, given["multiplier"])
    elif step.operation == "dequantize":
        say(x, ratios.one, given["scale"])
    elif step.operation == "quantized_mean":
        say(x, y, given["scale"] * size_of(step, sizes[x]))
    elif step.operation == "quantized_average_pool":
        say(x, y, given["scale"])
    elif step.operation == "quantized_binary":
        if given["function"] == "add":
            say(x, y, given["a_scale"])
            say(others[0], y, given["b_scale"])
    elif step.operation in ("quantized_convolution", "quantized_dense", "lookup"):
        prefix = _last_part(step)
        unit = _unit(network, step, prefix)
        if unit:
            say(y, ratios.one, unit[-1])
        if others and "table" not in step.weights:
            say(others[0], y, given["residual_scale"])
    else:
        for each in step.inputs:
            ratios.say(each, y, 0.0)


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


def _last_part(step: Step) -> str:
    """What the names of the tensors begin with from which a step's value is."""
    depthwise = "depthwise_kernel" in step.weights and "pointwise_kernel" not in step.weights
    return "depthwise_" if depthwise else ""


def _unit(network: Network, step: Step, prefix: str) -> list[float]:
    """The scales that a step says its sums are rounded to, and then looked up; maybe none."""
    part = f"{prefix}unit"
    if part not in step.weights:
        return []
    numbers: list[float] = network.tensors[step.weights[part]].tolist()
    return numbers


def rounding_scale(
    network: Network, step: Step, prefix: str, value: float, residual: float | None = None
) -> tuple[float, float]:
    """The scale that the sums of a part of a step are rounded to, and that of its result.

    Args:
        network: which has the step.
        step: with weights.
        prefix: of the part's tensors, "depthwise_" or nothing.
        value: the scale of the step's value.
        residual: that of what is added.

    Returns:
        Both; they are the same where no table follows.
    """
    unit = _unit(network, step, prefix)
    inside = prefix != _last_part(step)
    if f"{prefix}table" not in step.weights:
        scale = (unit[0] if unit else 1.0) if inside else value
        return scale, scale
    ratio = step.attributes.get("residual_scale", 0)
    told = 1.0
    if residual is not None and ratio > 0 and not inside:
        told = residual / ratio
    scale = unit[0] if unit else float(np.float32(told))
    return scale, (unit[-1] if unit else 1.0) if inside else value
