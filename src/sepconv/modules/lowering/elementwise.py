"""Functions of every element: activations, and arithmetic of two arrays or of one and a number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sepconv.modules.lowering.call import Call, array_of
from sepconv.modules.lowering.values import Value
from sepconv.program.building.constants import with_constant

__all__ = ["OPERATIONS"]

Write = Callable[[Call], Any]


def _unary(function: str, **names: Any) -> Write:
    """A function of an array; a, b and c are numbers, or names of arguments."""

    def write(call: Call) -> Value:
        numbers = {k: call[v] if isinstance(v, str) else v for k, v in names.items()}
        return Value(call.builder.unary(call.x.number, function, **numbers), call.x.axes)

    return write


def _clip(call: Call, least: float | None, most: float | None) -> Value:
    x, builder = call.x, call.builder
    low = -math.inf if least is None else float(least)
    high = math.inf if most is None else float(most)
    if low == 0 and high > 0:
        return Value(builder.relu(x.number, largest=high), x.axes)
    if low > high:  # where PyTorch gives the upper bound
        low = high
    return Value(builder.unary(x.number, "clip", low, high), x.axes)


def _relu(call: Call) -> Value:
    return Value(call.builder.relu(call.x.number), call.x.axes)


def _relu6(call: Call) -> Value:
    return Value(call.builder.relu(call.x.number, largest=6.0), call.x.axes)


def _leaky_relu(call: Call) -> Value:
    return Value(call.builder.relu(call.x.number, float(call["negative_slope"])), call.x.axes)


def _prelu(call: Call) -> Value:
    slopes = call.array("weight")
    assert slopes is not None  # as its schema demands
    x, builder = call.x, call.builder
    if slopes.size == 1:
        return Value(builder.relu(x.number, float(slopes.item())), x.axes)
    below = builder.relu(builder.unary(x.number, "negative"))
    below = builder.scale(below, call.place(1), -slopes.reshape(-1))
    return Value(builder.binary("add", builder.relu(x.number), below), x.axes)


def _elu(call: Call) -> Value:
    call.only(scale=1, input_scale=1)
    return _unary("elu", a="alpha")(call)


def _gelu(call: Call) -> Value:
    return _unary("gelu" if call["approximate"] == "none" else "gelu_tanh")(call)


def _softplus(call: Call) -> Value:
    # Above the threshold, PyTorch gives x itself, which differs by less than exp(-20).
    call.only(beta=1, threshold=20)
    return _unary("softplus")(call)


def _log_sigmoid(call: Call) -> Value:
    builder = call.builder
    turned = builder.unary(builder.unary(call.x.number, "negative"), "softplus")
    return Value(builder.unary(turned, "negative"), call.x.axes)


def _glu(call: Call) -> Value:
    axis, size = call.place(call["dim"]), call.shape[call.axis(call["dim"])]
    if size is None:
        call.refuse("it halves an axis whose size is open")
    x, builder, half = call.x.number, call.builder, size // 2
    gate = builder.unary(builder.slice(x, {axis: (half, size, 1)}), "sigmoid")
    return Value(
        builder.binary("multiply", builder.slice(x, {axis: (0, half, 1)}), gate), call.x.axes
    )


def _power(call: Call) -> Value:
    if isinstance(call["exponent"], int) and call["exponent"] == 3:
        square = call.builder.unary(call.x.number, "square")
        return Value(call.builder.binary("multiply", square, call.x.number), call.x.axes)
    return _two(call, "power", call["self"], call["exponent"])


def _two(call: Call, function: str, a: Any, b: Any) -> Value:
    """A function of two operands, of which one at least is a value of the network."""
    writer, builder = call.writer, call.builder
    if isinstance(a, Value) and isinstance(b, Value):
        if len(a.axes) == len(b.axes):
            plain = tuple(range(len(a.axes)))
            axes = b.axes if a.axes == plain else a.axes
            numbers = writer.arranged(a, axes), writer.arranged(b, axes)
            return Value(builder.binary(function, *numbers), axes)
        return writer.as_plain(builder.binary(function, writer.plain(a), writer.plain(b)))
    first = not isinstance(a, Value)
    x, other = (b, a) if first else (a, b)
    constant = np.asarray(other if not hasattr(other, "detach") else array_of(other))
    if constant.dtype.kind not in "fiub":
        call.refuse(f"its operand is {other}, which is open")
    same = writer.constant_like(x, constant)
    if same is None:
        operands = [writer.plain(x), builder.constant(constant)]
        return writer.as_plain(
            builder.binary(function, *(reversed(operands) if first else operands))
        )
    return Value(with_constant(builder, function, x.number, same, first), x.axes)


def _binary(function: str) -> Write:
    def write(call: Call) -> Value:
        a, b = call["self"], call["other"]
        alpha = call.args.get("alpha", 1)
        if alpha != 1:
            if isinstance(b, Value):
                b = Value(call.builder.linear(b.number, float(alpha)), b.axes)
            else:
                b = b * alpha
        if call.args.get("rounding_mode") is not None:
            call.refuse(f"it rounds: rounding_mode={call['rounding_mode']!r}")
        return _two(call, function, a, b)

    return write


def _reversed_subtraction(call: Call) -> Value:
    call.only(alpha=1)
    return _two(call, "subtract", call["other"], call["self"])


_PLAIN = (
    "sigmoid",
    "silu",
    "tanh",
    "mish",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "square",
    "abs",
    "reciprocal",
    "erf",
    "sin",
    "cos",
    "floor",
    "ceil",
    "round",
    "sign",
)

OPERATIONS: dict[str, Write] = {
    **{f"aten.{name}.default": _unary(name) for name in _PLAIN},
    "aten.neg.default": _unary("negative"),
    "aten.hardswish.default": _unary("hard_silu"),
    "aten.hardsigmoid.default": _unary("hard_sigmoid"),
    "aten.selu.default": _unary("selu"),
    "aten.celu.default": _unary("celu", a="alpha"),
    "aten.threshold.default": _unary("threshold", a="threshold", b="value"),
    "aten.relu.default": _relu,
    "aten.relu6.default": _relu6,
    "aten.leaky_relu.default": _leaky_relu,
    "aten.prelu.default": _prelu,
    "aten.elu.default": _elu,
    "aten.gelu.default": _gelu,
    "aten.softplus.default": _softplus,
    "aten.log_sigmoid.default": _log_sigmoid,
    "aten.glu.default": _glu,
    "aten.hardtanh.default": lambda call: _clip(call, call["min_val"], call["max_val"]),
    "aten.clamp.default": lambda call: _clip(call, call["min"], call["max"]),
    "aten.clamp_min.default": lambda call: _clip(call, call["min"], None),
    "aten.clamp_max.default": lambda call: _clip(call, None, call["max"]),
    "aten.pow.Tensor_Scalar": _power,
    "aten.add.Tensor": _binary("add"),
    "aten.sub.Tensor": _binary("subtract"),
    "aten.rsub.Scalar": _reversed_subtraction,
    "aten.mul.Tensor": _binary("multiply"),
    "aten.div.Tensor": _binary("divide"),
    "aten.div.Tensor_mode": _binary("divide"),
    "aten.maximum.default": _binary("maximum"),
    "aten.minimum.default": _binary("minimum"),
}
