"""Which steps have an int8 form, and what a function of a quantised value is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sepconv.program.network import Step
from sepconv.program.reference import UNARY_FUNCTIONS
from sepconv.program.shapes import Shape
from sepconv.quantization.origin import Rounding
from sepconv.quantization.ranges import Scale

__all__ = ["Finish", "bounds_of", "clamp_of", "function_of", "kind_of", "table_of", "why_not"]

#: Kinds of int8 steps, by the operation that they stand for.
_KINDS = {
    "convolution": "weights",
    "dense": "weights",
    "scale": "weights",
    "binary": "binary",
    "unary": "unary",
    "reduce": "mean",
    "pool": "pool",
    "concatenate": "move",
    "pad": "move",
    "reshape": "move",
    "resize": "move",
    "slice": "move",
    "transpose": "move",
}


class Finish(NamedTuple):
    """What follows a step's sums.

    Attributes:
        value: the number of the value that it all gives.
        rounding: of the sums; its scale is not that of the value where there is a table.
        lower: the least number.
        upper: the greatest.
        table: that the numbers are looked up in, or None.
    """

    value: int
    rounding: Rounding
    lower: int = 0
    upper: int = 255
    table: np.ndarray | None = None


def kind_of(step: Step) -> str | None:
    """What an int8 step of its kind is: with "weights", a "binary", "unary", "mean" or "pool" one.

    A step that only moves numbers, the greatest of a window included, is "move".

    Returns:
        The kind; None where there is no int8 form.
    """
    if step.operation == "pool" and step.attributes["function"] == "max":
        return "move"
    return _KINDS.get(step.operation)


def why_not(step: Step, inputs: Sequence[Shape]) -> str | None:
    """Why a step has no int8 form, in words; None where it has one.

    Args:
        step: of a float network.
        inputs: the shapes of its inputs.

    Example:
        >>> why_not(Step("softmax", "s", [0], {"axis": 1, "logarithm": False}), [(None, 3)])
        'softmax has no int8 form'
    """
    given = step.attributes
    if step.operation == "scale":
        rank = len(inputs[0])
        last = given["axis"] == rank - 1
        if rank not in (3, 4) or not (last or given["axis"] == 1):
            return "scale has an int8 form along the channels of images only"
    if step.operation == "binary" and given["function"] not in ("add", "subtract", "multiply"):
        return f"{given['function']} of two arrays has no int8 form"
    if step.operation == "reduce":
        if given["function"] != "mean":
            return f"{given['function']} over axes has no int8 form"
        if any(inputs[0][axis] is None for axis in given["axes"]):
            return "a mean over sizes that are open has no int8 form"
    if step.operation == "resize" and given["interpolation"] != "nearest":
        return f"{given['interpolation']} interpolation has no int8 form"
    return None if kind_of(step) else f"{step.operation} has no int8 form"


def function_of(step: Step) -> Callable[[np.ndarray], np.ndarray]:
    """The function of a unary step, of float64 arrays."""
    given = step.attributes
    function = UNARY_FUNCTIONS[given["function"]]

    def of(x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return function(np.asarray(x, np.float64), given["a"], given["b"], given["c"])

    return of


def clamp_of(step: Step) -> tuple[float, float] | None:
    """The bounds of a unary step that does nothing but clamp; None of others.

    Example:
        >>> clamp_of(Step("unary", "r", [0], {"function": "relu", "a": 0, "b": 6.0, "c": 0}))
        (0.0, 6.0)
    """
    given = step.attributes
    if step.operation != "unary":
        return None
    if given["function"] == "relu" and given["a"] == 0 and given["c"] == 0 and given["b"] > 0:
        return 0.0, float(given["b"])
    return (given["a"], given["b"]) if given["function"] == "clip" else None


def bounds_of(scale: Scale, clamp: tuple[float, float] | None) -> tuple[int, int]:
    """The least and the greatest number of a value that is clamped, 0 to 255.

    Example:
        >>> bounds_of(Scale(0.1, 10), (0.0, 6.0)), bounds_of(Scale(0.1, 0), None)
        ((10, 70), (0, 255))
    """
    if clamp is None:
        return 0, 255
    lower, upper = (
        (0 if end < 0 else 255) if math.isinf(end) else scale.zero_point + round(end / scale.scale)
        for end in clamp
    )
    lower = min(max(lower, 0), 255)
    return lower, min(max(upper, lower), 255)


def table_of(
    source: Scale, target: Scale, function: Callable[[np.ndarray], np.ndarray] | None = None
) -> np.ndarray | None:
    """The numbers of a value that is a function of another; None where one is not finite.

    Args:
        source: of the value that is looked up.
        target: of the result.
        function: None for the same number in another scale.

    Example:
        >>> table_of(Scale(1.0, 0), Scale(2.0, 1))[:5].tolist()
        [1, 1, 2, 3, 3]
    """
    x = source.real(np.arange(256))
    y = x if function is None else function(x)
    return target.quantized(y) if np.isfinite(y).all() else None
