"""What the bytes of an int8 network stand for, by its steps alone, where no note says it.

Steps say the ratios of scales: of a sum's to its summands', and so on. The scales themselves are
known at the ends. Where nothing is said, any scale computes the same, and 1 is taken. Functions are
those that tables are found to be of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from sepconv.onnx_file.tables import rounding_of_table
from sepconv.program.dtypes import value_dtypes
from sepconv.program.network import Network, Step
from sepconv.program.shapes import shapes
from sepconv.quantization.origin import Origin, Rounding, zero_points
from sepconv.quantization.ranges import Scale
from sepconv.quantization.ratios import said_ratios

__all__ = ["origin_by_ratios", "scales_of"]


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
            for ratio in said_ratios(step, first + i, sizes):
                a, b = (ratios.one if v is None else v for v in (ratio.first, ratio.second))
                ratios.say(a, b, math.log(ratio.times))
    for i, step in enumerate(network.steps):
        if step.operation == "quantized_binary" and step.attributes["function"] == "multiply":
            product = sum(ratios.of(value) for value in step.inputs)
            times = abs(step.attributes["a_scale"]) or 1.0
            ratios.say(first + i, ratios.one, product - math.log(times))
    bytes_ = [value for value, dtype in enumerate(dtypes) if dtype == "uint8"]
    return {value: float(np.float32(math.exp(ratios.of(value)))) for value in bytes_}


def origin_by_ratios(network: Network) -> Origin:
    """What the bytes of a network stand for, as a note of `sepconv.quantize` would say it.

    A table that is of no known function has none, and its results the zero point 0.

    Raises:
        ValueError: see `scales_of`.

    Example:
        >>> from sepconv.program.network import Input
        >>> steps = [Step("quantize", "begin", [0], {"multiplier": 4.0, "zero_point": 3}),
        ...          Step("reshape", "rows", [1], {"shape": [0, -1]})]
        >>> network = Network("float32", [Input("x", (None, 2, 3))], steps, [], [], [])
        >>> [[rounding.scale for rounding in each] for each in origin_by_ratios(network)]
        [[Scale(scale=0.25, zero_point=3)], []]
    """
    scales, first = scales_of(network), len(network.inputs)
    origin: list[list[Rounding]] = []
    points = [0] * first  # of all values, of which those of floats mean nothing
    for i, step in enumerate(network.steps):
        found = _roundings(network, step, first + i, scales, points)
        moved = points[step.inputs[0]] if step.inputs else 0
        points.append(found[-1].result.zero_point if found else moved)
        origin.append(found)
    return origin


def _roundings(
    network: Network, step: Step, y: int, scales: Mapping[int, float], points: Sequence[int]
) -> list[Rounding]:
    """Those of a step, whose value is `y`; zero points are known of the values before it."""
    if step.operation == "lookup":
        (x,) = step.inputs
        table = network.tensors[step.weights["table"]]
        return [rounding_of_table(table, Scale(scales[x], points[x]), scales[y])]
    if step.operation == "constant" and y in scales:
        return [_plain(Scale(scales[y], 0))]
    found: list[Rounding] = []
    own = zero_points(step)
    for k, point in enumerate(own):
        last = k == len(own) - 1 and y in scales
        prefix = "depthwise_" if k == 0 and "depthwise_kernel" in step.weights else ""
        part, result = f"{prefix}table", scales[y] if last else 1.0
        if part in step.weights:
            sums = Scale(_before_table(step, scales) if last else 1.0, point)
            table = network.tensors[step.weights[part]]
            found.append(rounding_of_table(table, sums, result))
        else:
            found.append(_plain(Scale(result, point)))
    return found


def _before_table(step: Step, scales: Mapping[int, float]) -> float:
    """The scale of sums that are looked up: what is added to them says it, or nothing does."""
    ratio = step.attributes.get("residual_scale", 0)
    if len(step.inputs) > 1 and ratio > 0:
        return float(np.float32(scales[step.inputs[1]] / ratio))
    return 1.0


def _plain(scale: Scale) -> Rounding:
    return Rounding(scale, scale)
