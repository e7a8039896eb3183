"""Writes functions of a value and a constant, in as few and as simple steps as can be."""

from __future__ import annotations

import math

import numpy as np

from sepconv.program.building.builder import Builder
from sepconv.program.shapes import broadcast

__all__ = ["affine", "with_constant"]


def affine(builder: Builder, x: int, scale: np.ndarray, shift: np.ndarray) -> int:
    """``x * scale + shift``, with constants that are broadcast to the shape of x."""
    if scale.size == shift.size == 1 and max(scale.ndim, shift.ndim) <= builder.rank(x):
        return builder.linear(x, scale.item(), shift.item())
    axis = _only_axis(builder.shapes[x], scale, shift)
    if axis is not None:
        size = max(scale.size, shift.size)
        both = (np.broadcast_to(array.reshape(-1), size) for array in (scale, shift))
        return builder.scale(x, axis, *both)
    y = builder.binary("multiply", x, builder.constant(scale))
    return builder.binary("add", y, builder.constant(shift))


def _only_axis(shape: tuple[int | None, ...], *arrays: np.ndarray) -> int | None:
    """The axis of a shape along which constants differ; None where there is no such single one."""
    axes = set()
    for array in arrays:
        if array.ndim > len(shape):
            return None
        axes |= {
            len(shape) - array.ndim + axis for axis, size in enumerate(array.shape) if size != 1
        }
    if len(axes) != 1:
        return None
    (axis,) = axes
    sizes = {array.size for array in arrays} - {1}
    return axis if sizes == {shape[axis]} else None


def with_constant(
    builder: Builder, function: str, x: int, constant: np.ndarray, first: bool
) -> int:
    """A binary function of a value and a constant.

    Args:
        builder: where it writes.
        function: in `sepconv.program.network.BINARY`.
        x: the value.
        constant: the other operand.
        first: whether the constant is the first one.
    """
    constant = np.asarray(constant, np.float64)
    divides = function == "divide" and not first and bool((constant != 0).all())
    if function in ("add", "subtract", "multiply") or divides:
        one, zero = np.ones(()), np.zeros(())
        scale, shift = {
            "add": (one, constant),
            "subtract": (-one, constant) if first else (one, -constant),
            "multiply": (constant, zero),
            "divide": (1 / constant if divides else one, zero),
        }[function]
        fits = broadcast(builder.shapes[x], constant.shape) == builder.shapes[x]
        if fits and (constant.size == 1 or _only_axis(builder.shapes[x], constant) is not None):
            return affine(builder, x, scale, shift)
    if constant.size == 1 and constant.ndim <= builder.rank(x):
        simple = _with_number(builder, function, x, constant.item(), first)
        if simple is not None:
            return simple
    operands = [x, builder.constant(constant)]
    return builder.binary(function, *(reversed(operands) if first else operands))


#: x to the power of a number, where that has a function of its own.
_POWERS = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}


def _with_number(builder: Builder, function: str, x: int, number: float, first: bool) -> int | None:
    if function == "maximum":
        return builder.unary(x, "clip", number, math.inf)
    if function == "minimum":
        return builder.unary(x, "clip", -math.inf, number)
    if function == "divide":
        return builder.linear(builder.unary(x, "reciprocal"), number)
    if function == "power" and not first and number in _POWERS:
        return builder.unary(x, _POWERS[number])
    return None
