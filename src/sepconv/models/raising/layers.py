"""Steps with weights, functions and sums as layers of Keras'."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from sepconv.geometry import ConvSpec
from sepconv.models.lowering.activations import FUNCTIONS
from sepconv.models.raising.call import Call
from sepconv.program.building.builder import Builder
from sepconv.program.network import Input

__all__ = ["LAYERS"]


@functools.cache
def _activations() -> dict[tuple[str, float, float, float], str]:
    """The names of Keras' activations that are one function, by it and its numbers."""
    found = {}
    for name, write in FUNCTIONS.items():
        builder = Builder("float32", [Input("x", (None, 2))])
        write(builder, 0)
        if [step.operation for step in builder.steps] == ["unary"]:
            given = builder.steps[0].attributes
            found[given["function"], given["a"], given["b"], given["c"]] = name
    return found


def _convolution(call: Call) -> Any:
    spec, rank = ConvSpec(*call.given["spec"]), len(call.x.shape)
    parts = dict(call.weights)
    residual = call.inputs[1] if len(call.inputs) > 1 else None
    last = call.given["activation"]
    x = call.x
    if "depthwise_kernel" in parts:
        alone = "pointwise_kernel" not in parts
        bias = parts.get("bias" if alone else "depthwise_bias")
        activation = last if alone else call.given["depthwise_activation"]
        x = _convolved(call, x, parts["depthwise_kernel"], bias, spec, activation, depthwise=True)
        if alone:
            return x
        spec = ConvSpec(1, 1, 1, 1, 0, 0, 0, 0, 0, spec.channels_first)
    inside = last if residual is None else "none"
    kernel = parts["pointwise_kernel"]
    y = _convolved(call, x, kernel, parts.get("bias"), spec, inside, depthwise=False)
    assert rank == len(y.shape)
    return _with_residual(call, y, residual, last)


def _convolved(
    call: Call,
    x: Any,
    kernel: np.ndarray,
    bias: np.ndarray | None,
    spec: ConvSpec,
    activation: str,
    *,
    depthwise: bool,
) -> Any:
    rank = len(x.shape) - 2
    strides, dilations = (spec[begin : begin + 2][2 - rank :] for begin in (0, 2))
    if max(strides) > 1 and max(dilations) > 1:
        call.refuse(f"strides {strides} beside dilations {dilations}")
    if depthwise and len(set(strides)) > 1:
        call.refuse(f"a depthwise convolution with the strides {strides}, which differ")
    around = ((spec.pad_top, spec.pad_bottom), (spec.pad_left, spec.pad_right))[2 - rank :]
    if any(map(any, around)):
        kind = layers.ZeroPadding2D if rank == 2 else layers.ZeroPadding1D
        padding = around if rank == 2 else around[0]
        x = call.layer(kind, x, padding=padding, data_format=spec.data_format)
    kernel = kernel if rank == 2 else kernel[0]
    arguments: dict[str, Any] = {
        "kernel_size": kernel.shape[:rank],
        "strides": strides,
        "padding": "same" if spec.same else "valid",
        "dilation_rate": dilations,
        "data_format": spec.data_format,
        "activation": None if activation == "none" else activation,
        "use_bias": bias is not None,
    }
    if depthwise:
        arguments["depth_multiplier"] = kernel.shape[-1]
        kind = layers.DepthwiseConv2D if rank == 2 else layers.DepthwiseConv1D
        if rank == 1:
            for name in ("kernel_size", "strides", "dilation_rate"):
                arguments[name] = arguments[name][0]
    else:
        arguments["filters"] = kernel.shape[-1]
        kind = layers.Conv2D if rank == 2 else layers.Conv1D
    return call.layer(kind, x, [kernel, bias], **arguments)


def _with_residual(call: Call, y: Any, residual: Any, activation: str) -> Any:
    if residual is None:
        return y
    y = call.layer(layers.Add, [y, residual])
    return y if activation == "none" else call.layer(layers.Activation, y, activation=activation)


def _dense(call: Call) -> Any:
    last = call.given["activation"]
    residual = call.inputs[1] if len(call.inputs) > 1 else None
    inside = last if residual is None else "none"
    bias = call.weights.get("bias")
    y = call.layer(
        layers.Dense,
        call.x,
        [call.weights["kernel"], bias],
        units=call.weights["kernel"].shape[1],
        activation=None if inside == "none" else inside,
        use_bias=bias is not None,
    )
    return _with_residual(call, y, residual, last)


def _unary(call: Call) -> Any:
    function, a, b, c = (call.given[name] for name in ("function", "a", "b", "c"))
    name = _activations().get((function, a, b, c)) or _activations().get((function, a, 0.0, 0.0))
    if function == "relu":
        name = None
        if c == 0:
            largest = None if math.isinf(b) else b
            return call.layer(layers.ReLU, call.x, max_value=largest, negative_slope=a)
    if name is not None:
        return call.layer(layers.Activation, call.x, activation=name)
    if function == "elu":
        return call.layer(layers.ELU, call.x, alpha=a)
    if function == "linear":
        return call.layer(layers.Rescaling, call.x, scale=a, offset=b)
    return None


_MERGING = {
    "add": layers.Add,
    "subtract": layers.Subtract,
    "multiply": layers.Multiply,
    "maximum": layers.Maximum,
    "minimum": layers.Minimum,
}


def _binary(call: Call) -> Any:
    a, b = call.inputs
    kind = _MERGING.get(call.given["function"])
    whole = all(isinstance(each, keras.KerasTensor) for each in (a, b))
    if kind is None or not whole or len(a.shape) != len(b.shape):
        return None
    return call.layer(kind, [a, b])


def _layer_normalization(call: Call) -> Any:
    axes, gamma, beta = call.given["axes"], call.weights.get("gamma"), call.weights.get("beta")
    return call.layer(
        layers.LayerNormalization,
        call.x,
        [gamma, beta],
        axis=-1 if axes == 1 else list(range(-axes, 0)),
        epsilon=call.given["epsilon"],
        scale=gamma is not None,
        center=beta is not None,
    )


def _softmax(call: Call) -> Any:
    axis, rank = call.given["axis"], len(call.x.shape)
    if not call.given["logarithm"]:
        return call.layer(layers.Softmax, call.x, axis=axis)
    if axis != rank - 1:
        return None
    return call.layer(layers.Activation, call.x, activation="log_softmax")


#: Functions that make layers of steps, by their operation; None where Keras has no layer.
LAYERS: dict[str, Callable[[Call], Any]] = {
    "convolution": _convolution,
    "dense": _dense,
    "unary": _unary,
    "binary": _binary,
    "layer_normalization": _layer_normalization,
    "softmax": _softmax,
}
