"""Activations: functions of `keras.activations`, and the layers that apply one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras

from sepconv.models.lowering.call import Call, array_of
from sepconv.program.building.builder import Builder

__all__ = ["FUNCTIONS", "LAYERS", "activate", "glu", "keras_relu", "unknown_activation"]


def keras_relu(
    builder: Builder, x: int, slope: float = 0.0, largest: float | None = None, start: float = 0.0
) -> int:
    """`keras.activations.relu` with all that it can be given."""
    top = math.inf if largest is None else float(largest)
    if start == 0:
        return builder.relu(x, float(slope), top)
    # Keras takes 0 at the threshold itself, and where a largest value is given, below zero.
    y = builder.unary(x, "threshold", start, 0.0)
    if largest is not None:
        y = builder.unary(y, "clip", 0.0, top)
    if slope == 0:
        return y
    below = builder.relu(builder.linear(x, -1.0, start))
    return builder.binary("subtract", y, builder.linear(below, slope))


def glu(builder: Builder, x: int, axis: int = -1) -> int:
    """One half times the sigmoid of the other."""
    axis = builder.axis(x, axis)
    size = builder.shapes[x][axis]
    if size is None or size % 2:
        raise ValueError(f"glu halves an axis, which must be even. It is {size}")
    half = size // 2
    gate = builder.unary(builder.slice(x, {axis: (half, None, 1)}), "sigmoid")
    return builder.binary("multiply", builder.slice(x, {axis: (0, half, 1)}), gate)


def _log_sigmoid(builder: Builder, x: int) -> int:
    return builder.unary(builder.unary(builder.unary(x, "negative"), "softplus"), "negative")


def _tanh_shrink(builder: Builder, x: int) -> int:
    return builder.binary("subtract", x, builder.unary(x, "tanh"))


def _sparse_sigmoid(builder: Builder, x: int) -> int:
    return builder.unary(builder.linear(x, 0.5, 0.5), "clip", 0.0, 1.0)


def _plain(function: str, *numbers: float) -> Callable[[Builder, int], int]:
    return lambda builder, x: builder.unary(x, function, *numbers)


#: The functions of `keras.activations`, with their default arguments.
FUNCTIONS: dict[str, Callable[[Builder, int], int]] = {
    "linear": lambda builder, x: x,
    "relu": keras_relu,
    "relu6": lambda builder, x: builder.relu(x, largest=6.0),
    "leaky_relu": lambda builder, x: builder.relu(x, 0.2),
    "elu": _plain("elu", 1.0),
    "celu": _plain("celu", 1.0),
    "selu": _plain("selu"),
    "softplus": _plain("softplus"),
    "softsign": _plain("softsign"),
    "squareplus": _plain("squareplus", 4.0),
    "soft_shrink": _plain("soft_shrink", 0.5),
    "hard_shrink": _plain("hard_shrink", 0.5),
    "hard_tanh": _plain("clip", -1.0, 1.0),
    "tanh_shrink": _tanh_shrink,
    "sparse_plus": _plain("sparse_plus"),
    "sparse_sigmoid": _sparse_sigmoid,
    "silu": _plain("silu"),
    "hard_silu": _plain("hard_silu"),
    "sigmoid": _plain("sigmoid"),
    "hard_sigmoid": _plain("hard_sigmoid"),
    "log_sigmoid": _log_sigmoid,
    "gelu": _plain("gelu"),
    "mish": _plain("mish"),
    "tanh": _plain("tanh"),
    "exponential": _plain("exp"),
    "glu": glu,
    "softmax": lambda builder, x: builder.softmax(x, -1),
    "log_softmax": lambda builder, x: builder.softmax(x, -1, logarithm=True),
}


def activate(call: Call, x: int, activation: Any) -> int:
    """Applies what a layer has as its activation: None, a function of Keras', or a layer."""
    write = _find(activation)
    assert write is not None  # since the steps were checked
    return write(call.builder, x)


def unknown_activation(activation: Any) -> str:
    """Why an activation of a layer's is refused; empty where it is not."""
    if _find(activation) is not None:
        return ""
    name = getattr(activation, "__name__", type(activation).__name__)
    return f"its activation {name!r} is not known"


def _find(activation: Any) -> Callable[[Builder, int], int] | None:
    if activation is None:
        return FUNCTIONS["linear"]
    for name, write in FUNCTIONS.items():
        if activation is getattr(keras.activations, name, None):
            return write
        if activation is getattr(keras.ops, name, None):  # whose defaults are the same, but for
            return _plain("gelu_tanh") if name == "gelu" else write
    if type(activation) in _OF_ONE_VALUE:
        of_layer = _OF_ONE_VALUE[type(activation)]
        return lambda builder, x: of_layer(builder, x, activation)
    return None


def _prelu(builder: Builder, x: int, layer: Any) -> int:
    # The slopes have the shape of x without the batch, or ones.
    slopes = builder.constant(-array_of(layer.alpha))
    below = builder.relu(builder.unary(x, "negative"))
    return builder.binary("add", builder.relu(x), builder.binary("multiply", slopes, below))


def _softmax(builder: Builder, x: int, layer: Any) -> int:
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    if len(axes) != 1:
        raise ValueError(f"softmax over several axes is not known. Its axis is {layer.axis}")
    return builder.softmax(x, axes[0])


#: Layers that are functions of one value, which may be an activation, too.
_OF_ONE_VALUE: dict[type, Callable[[Builder, int, Any], int]] = {
    keras.layers.ReLU: lambda builder, x, layer: keras_relu(
        builder, x, layer.negative_slope, layer.max_value, layer.threshold
    ),
    keras.layers.LeakyReLU: lambda builder, x, layer: builder.relu(x, layer.negative_slope),
    keras.layers.ELU: lambda builder, x, layer: builder.unary(x, "elu", layer.alpha),
    keras.layers.PReLU: _prelu,
    keras.layers.Softmax: _softmax,
}


def _one_value(call: Call) -> int:
    return _OF_ONE_VALUE[type(call.layer)](call.builder, call.x, call.layer)


LAYERS: dict[type, Callable[[Call], int]] = {
    keras.layers.Activation: lambda call: activate(call, call.x, call.layer.activation),
    **dict.fromkeys(_OF_ONE_VALUE, _one_value),
}
