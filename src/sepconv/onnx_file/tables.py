"""The function that a table of 256 numbers is, as ONNX has it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sepconv.program.network import Step
from sepconv.quantization.forms import function_of
from sepconv.quantization.ranges import Scale

__all__ = ["FUNCTIONS", "function_of_table"]


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


def function_of_table(table: np.ndarray, source: Scale, scale: float) -> tuple[Step, Scale] | None:
    """The function that gives a table, to the last number.

    Args:
        table: 256 numbers of uint8.
        source: of what is looked up.
        scale: that of the result.

    Returns:
        The function, as a step, and the result's scale with its zero point; None where none of
        `FUNCTIONS` has this table.

    Example:
        >>> from sepconv.quantization.forms import table_of
        >>> source, target = Scale(0.1, 100), Scale(0.05, 6)
        >>> table = table_of(source, target, function_of(FUNCTIONS["silu"]))
        >>> step, found = function_of_table(table, source, 0.05)
        >>> step.name, found
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
                return step, target
    return None
