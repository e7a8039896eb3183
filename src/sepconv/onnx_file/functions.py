"""Functions of one and of two arrays, and activations, as ONNX nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from sepconv.onnx_file.call import Call

__all__ = ["BINARY", "activated", "clipped", "unary"]

Function = Callable[[Call, str, float, float, float], str]


def clipped(call: Call, x: str, least: float, greatest: float) -> str:
    """Numbers between two bounds, of which either may be infinite."""
    if least == 0 and math.isinf(greatest):
        return call.node("Relu", x)
    low = "" if math.isinf(least) else call.constant(least, "least")
    high = [] if math.isinf(greatest) else [call.constant(greatest, "greatest")]
    return call.node("Clip", x, low, *high)


def activated(call: Call, x: str, activation: str) -> str:
    """Numbers after an activation of a convolution, by its name."""
    if activation == "none":
        return x
    if activation in ("relu", "relu6"):
        return clipped(call, x, 0.0, math.inf if activation == "relu" else 6.0)
    return unary(call, x, activation)


def unary(call: Call, x: str, function: str, a: float = 0, b: float = 0, c: float = 0) -> str:
    """A function of `sepconv.program.network.UNARY` of numbers."""
    if function in _NODES:
        return call.node(_NODES[function], x)
    if function not in _WRITTEN:
        call.refuse(f"it has no {function}")
    return _WRITTEN[function](call, x, a, b, c)


def _named(operation: str, **attributes: float) -> Function:
    return lambda call, x, a, b, c: call.node(operation, x, **attributes)


def _number(call: Call, operation: str, x: str, number: float) -> str:
    return call.node(operation, x, call.constant(number))


def _relu(call: Call, x: str, a: float, b: float, c: float) -> str:
    if c == 0 and a == 0:
        return clipped(call, x, 0.0, b)
    if c == 0 and math.isinf(b):
        return call.node("LeakyRelu", x, alpha=a)
    kept = clipped(call, x, -math.inf, b) if not math.isinf(b) else x
    below = _number(call, "Mul", _number(call, "Sub", x, c), a)
    return call.node("Where", _number(call, "Less", x, c), below, kept)


def _silu(call: Call, x: str, a: float, b: float, c: float) -> str:
    return call.node("Mul", x, call.node("Sigmoid", x))


def _gelu(call: Call, x: str, a: float, b: float, c: float) -> str:
    # In the order in which ONNX Runtime and others know it as one operation.
    error = call.node("Erf", _number(call, "Div", x, math.sqrt(2)))
    return _number(call, "Mul", call.node("Mul", x, _number(call, "Add", error, 1.0)), 0.5)


def _gelu_tanh(call: Call, x: str, a: float, b: float, c: float) -> str:
    cube = _number(call, "Mul", _number(call, "Pow", x, 3.0), 0.044715)
    inside = _number(call, "Mul", call.node("Add", x, cube), math.sqrt(2 / math.pi))
    one = _number(call, "Add", call.node("Tanh", inside), 1.0)
    return call.node("Mul", _number(call, "Mul", x, 0.5), one)


def _mish(call: Call, x: str, a: float, b: float, c: float) -> str:
    return call.node("Mul", x, call.node("Tanh", call.node("Softplus", x)))


def _linear(call: Call, x: str, a: float, b: float, c: float) -> str:
    scaled = x if a == 1 else _number(call, "Mul", x, a)
    return scaled if b == 0 else _number(call, "Add", scaled, b)


def _clip(call: Call, x: str, a: float, b: float, c: float) -> str:
    return clipped(call, x, a, b)


def _threshold(call: Call, x: str, a: float, b: float, c: float) -> str:
    return call.node("Where", _number(call, "Greater", x, a), x, call.constant(b))


def _squareplus(call: Call, x: str, a: float, b: float, c: float) -> str:
    root = call.node("Sqrt", _number(call, "Add", call.node("Mul", x, x), a))
    return _number(call, "Mul", call.node("Add", x, root), 0.5)


def _sparse_plus(call: Call, x: str, a: float, b: float, c: float) -> str:
    plus = _number(call, "Add", clipped(call, x, -1.0, math.inf), 1.0)
    curve = _number(call, "Mul", call.node("Mul", plus, plus), 0.25)
    return call.node("Where", _number(call, "Less", x, 1.0), curve, x)


#: Functions that ONNX has by a name.
_NODES: Mapping[str, str] = {
    "sigmoid": "Sigmoid",
    "hard_silu": "HardSwish",
    "tanh": "Tanh",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "abs": "Abs",
    "negative": "Neg",
    "reciprocal": "Reciprocal",
    "erf": "Erf",
    "sin": "Sin",
    "cos": "Cos",
    "floor": "Floor",
    "ceil": "Ceil",
    "round": "Round",
    "sign": "Sign",
}

_WRITTEN: Mapping[str, Function] = {
    "relu": _relu,
    "hard_sigmoid": _named("HardSigmoid", alpha=1 / 6, beta=0.5),
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "elu": lambda call, x, a, b, c: call.node("Elu", x, alpha=a),
    "selu": _named("Selu", alpha=1.6732632423543772, gamma=1.0507009873554805),
    "celu": lambda call, x, a, b, c: call.node("Celu", x, alpha=a),
    "mish": _mish,
    "rsqrt": lambda call, x, a, b, c: call.node("Reciprocal", call.node("Sqrt", x)),
    "square": lambda call, x, a, b, c: call.node("Mul", x, x),
    "clip": _clip,
    "linear": _linear,
    "soft_shrink": lambda call, x, a, b, c: call.node("Shrink", x, lambd=a, bias=a),
    "hard_shrink": lambda call, x, a, b, c: call.node("Shrink", x, lambd=a, bias=0.0),
    "threshold": _threshold,
    "squareplus": _squareplus,
    "sparse_plus": _sparse_plus,
}

#: Functions of two arrays, by the name of ONNX's operation.
BINARY: Mapping[str, Any] = {
    "add": "Add",
    "subtract": "Sub",
    "multiply": "Mul",
    "divide": "Div",
    "maximum": "Max",
    "minimum": "Min",
    "power": "Pow",
}
