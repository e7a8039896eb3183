"""The function that a table of 256 numbers is, as ONNX has it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sepconv.program.network import Step
from sepconv.quantization.forms import function_of, table_of
from sepconv.quantization.origin import Rounding
from sepconv.quantization.ranges import Scale

__all__ = ["FUNCTIONS", "function_of_table", "rounding_of_table"]


def _unary(function: str, a: float = 0.0, b: float = 0.0, c: float = 0.0) -> Step:
    return Step("unary", function, (0,), {"function": function, "a": a, "b": b, "c": c})


_INFINITY = float("inf")

#: The functions that are looked for, most likely ones first: as steps of one array.
FUNCTIONS: Mapping[str, Step] = {
    "the same": _unary("linear", 1.0),
    "silu": _unary("silu"),
    "hard_silu": _unary("hard_silu"),
    "gelu": _unary("gelu"),
    "gelu_tanh": _unary("gelu_tanh"),
    "sigmoid": _unary("sigmoid"),
    "hard_sigmoid": _unary("hard_sigmoid"),
    "tanh": _unary("tanh"),
    "relu": _unary("relu", 0.0, _INFINITY),
    "relu6": _unary("relu", 0.0, 6.0),
    "elu": _unary("elu", 1.0),
    "selu": _unary("selu"),
    **{f"leaky {slope}": _unary("relu", slope, _INFINITY) for slope in (0.01, 0.1, 0.2, 0.3)},
    "mish": _unary("mish"),
    "softplus": _unary("softplus"),
    "softsign": _unary("softsign"),
    "exp": _unary("exp"),
    "abs": _unary("abs"),
    "square": _unary("square"),
    "sqrt": _unary("sqrt"),
    "negative": _unary("negative"),
}


def rounding_of_table(table: np.ndarray, source: Scale, scale: float) -> Rounding:
    """What a table stands for: the function that gives it, to the last number.

    Args:
        table: 256 numbers of uint8.
        source: of what is looked up.
        scale: that of the result.

    Returns:
        A rounding with the function and the result's zero point; without a function, and with the
        zero point 0, where none of `FUNCTIONS` has this table.

    Example:
        >>> source, target = Scale(0.1, 100), Scale(0.05, 6)
        >>> table = table_of(source, target, function_of(FUNCTIONS["silu"]))
        >>> rounding = rounding_of_table(table, source, 0.05)
        >>> rounding.function["function"], rounding.result
        ('silu', Scale(scale=0.05, zero_point=6))
    """
    x = source.real(np.arange(256))
    for step in FUNCTIONS.values():
        y = function_of(step)(x)
        if not np.isfinite(y).all():
            continue
        whole = np.rint(y / scale)
        # Where the table is not at its ends, it says the zero point.
        for point in np.unique(table - whole):
            target = Scale(scale, int(point))
            if 0 <= point <= 255 and (target.quantized(y) == table).all():
                return Rounding(source, target, function=step.attributes)
    return Rounding(source, Scale(scale, 0))


def function_of_table(table: np.ndarray, rounding: Rounding) -> Step | None:
    """The function that is written for a table: the one that its rounding names, if it gives it.

    Args:
        table: 256 numbers of uint8.
        rounding: of what is looked up; without a function, the table changes the scale alone.

    Returns:
        The function, as a step; None where the table has other numbers than it, or where it jumps
        between numbers that are the same in float32, in which ONNX computes.

    Example:
        >>> rounding = Rounding(Scale(0.1, 100), Scale(0.2, 50))
        >>> table = table_of(rounding.scale, rounding.result)
        >>> function_of_table(table, rounding).name
        'linear'
        >>> function_of_table(table[::-1], rounding)
    """
    step = FUNCTIONS["the same"]
    if rounding.function is not None:
        step = step._replace(attributes=rounding.function)
    function = function_of(step)
    made = table_of(rounding.scale, rounding.result, function)
    near = table_of(rounding.scale, rounding.result, lambda x: function(x.astype(np.float32)))
    if made is None or near is None or (made != table).any():
        return None
    return step if np.abs(near.astype(int) - table).max() <= 1 else None
