"""Convolutions, in one and two dimensions, of Keras and of sepconv; and Dense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from sepconv import layers
from sepconv.fused import BLOCK_ACTIVATIONS
from sepconv.geometry import ConvSpec, conv_spec, conv_spec_1d
from sepconv.layers.activations import kernel_activation
from sepconv.models.folding import FusedConvolution, Stock
from sepconv.models.graph import Value
from sepconv.models.lowering.activations import activate
from sepconv.models.lowering.call import Call, array_of

__all__ = ["LAYERS"]


class _Given(NamedTuple):
    """What a convolution computes with, whether a layer says so or what `optimize` made of it.

    Attributes:
        spec: for an image, which may be one pixel high.
        kernels: of four axes each.
        bias: or None.
        activation: one of Keras', or None.
        groups: of an ordinary convolution.
        axes: that its input must have.
    """

    spec: ConvSpec
    kernels: list[np.ndarray]
    bias: np.ndarray | None
    activation: Any
    groups: int
    axes: int


_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")


def _given(call: Call) -> _Given:
    """What a layer with one or two spatial axes computes with."""
    stock = call.layer if isinstance(call.layer, Stock) else None
    layer = call.layer if stock is None else stock.layer
    padding = layer.padding if stock is None else stock.config.get("padding", layer.padding)
    arguments = layer.strides, padding, layer.dilation_rate, layer.data_format
    if len(layer.kernel_size) == 1:
        spec = conv_spec_1d(layer.kernel_size[0], *arguments)
    else:
        spec = conv_spec(*arguments)
    if stock is None:
        kernels = [array_of(getattr(layer, k)) for k in _KERNELS if hasattr(layer, k)]
        bias = _bias(layer)
    else:
        kernels, bias = stock.kernels, stock.bias
    return _Given(
        spec,
        [kernel[None] if kernel.ndim == 3 else kernel for kernel in kernels],
        bias,
        layer.activation if stock is None else stock.activation,
        getattr(layer, "groups", 1),
        len(layer.kernel_size) + 2,
    )


def _convolve(
    call: Call,
    inputs: list[int],
    spec: ConvSpec,
    activation: Any,
    between: Any = None,
    **weights: np.ndarray | None,
) -> int:
    """A convolution, and its activation, in the same step where kernels know it."""
    if weights.get("depthwise_kernel") is None:
        pointwise = weights["pointwise_kernel"]
        assert pointwise is not None
        if pointwise.shape[:2] == (1, 1):  # which sees no padding, and no dilation
            spec = spec._replace(same=0, dilation_h=1, dilation_w=1)
    fused = kernel_activation(activation, BLOCK_ACTIVATIONS)
    attributes = {
        "spec": list(spec),
        "depthwise_activation": kernel_activation(between, BLOCK_ACTIVATIONS) or "none",
        "activation": fused or "none",
    }
    y = call.builder.emit("convolution", inputs, attributes, weights)
    return y if fused else activate(call, y, activation)


def _bias(layer: Any) -> np.ndarray | None:
    return array_of(layer.bias) if layer.use_bias else None


def _depthwise(call: Call) -> int:
    given = _given(call)
    weights = {"depthwise_kernel": given.kernels[0], "bias": given.bias}
    return _convolve(call, [call.x], given.spec, given.activation, **weights)


def _separable(call: Call) -> int:
    given = _given(call)
    depthwise, pointwise = given.kernels
    weights = {"depthwise_kernel": depthwise, "pointwise_kernel": pointwise, "bias": given.bias}
    return _convolve(call, [call.x], given.spec, given.activation, **weights)


def _ordinary(call: Call) -> int:
    given, x = _given(call), call.x
    spec, (kernel,), bias, activation, groups, axes = given
    if call.rank != axes:
        call.refuse(f"its input has {call.rank} axes")
    if groups == 1:
        return _convolve(call, [x], spec, activation, pointwise_kernel=kernel, bias=bias)
    height, width, depth, filters = kernel.shape
    each = filters // groups
    if depth == 1:
        depthwise = kernel.reshape(height, width, groups, each)
        return _convolve(call, [x], spec, activation, depthwise_kernel=depthwise, bias=bias)
    axis, parts = 1 if spec.channels_first else call.rank - 1, []
    for group in range(groups):
        part = call.builder.slice(x, {axis: (group * depth, (group + 1) * depth, 1)})
        outputs = slice(group * each, (group + 1) * each)
        weights = {
            "pointwise_kernel": kernel[..., outputs],
            "bias": None if bias is None else bias[outputs],
        }
        parts.append(_convolve(call, [part], spec, None, **weights))
    return activate(call, call.builder.concatenate(parts, axis), activation)


def _fused_inputs(call: Call) -> list[int]:
    """The numbers of the input, and of the residual where there is one."""
    args, kwargs = call.step.arguments
    given = [*args, *(v for v in kwargs.values() if v is not None)]
    if not all(isinstance(value, Value) for value in given) or len(given) > 2 or not args:
        call.refuse("it is called with arguments that are not known")
    return [call.numbers[value] for value in given]


def _fused_convolution(call: Call) -> int:
    block: FusedConvolution = call.layer
    spec = conv_spec(block.strides, block.padding, block.dilation_rate, block.data_format)
    weights = {
        "depthwise_kernel": block.depthwise,
        "depthwise_bias": block.depthwise_bias,
        "pointwise_kernel": block.pointwise,
        "bias": block.bias,
    }
    inputs, between = _fused_inputs(call), block.depthwise_activation
    return _convolve(call, inputs, spec, block.activation, between, **weights)


def _stock(call: Call) -> int:
    return LAYERS[type(call.layer.layer)](call)


def _fused_layer(call: Call) -> int:
    layer = call.layer
    weights = {
        name: None if weight is None else array_of(weight)
        for name in ("depthwise_kernel", "depthwise_bias", "pointwise_kernel", "bias")
        for weight in [getattr(layer, name)]
    }
    inputs, between = _fused_inputs(call), layer.depthwise_activation
    return _convolve(call, inputs, layer._spec, layer.activation, between, **weights)


def _dense(call: Call) -> int:
    layer = call.layer
    stock = isinstance(layer, Stock)
    (kernel,) = layer.kernels if stock else [array_of(layer.kernel)]
    weights = {"kernel": kernel, "bias": layer.bias if stock else _bias(layer)}
    fused = kernel_activation(layer.activation, BLOCK_ACTIVATIONS)
    y = call.builder.emit("dense", [call.x], {"activation": fused or "none"}, weights)
    return y if fused else activate(call, y, layer.activation)


LAYERS: dict[type, Callable[[Call], int]] = {
    keras.layers.DepthwiseConv1D: _depthwise,
    keras.layers.DepthwiseConv2D: _depthwise,
    layers.DepthwiseConv1D: _depthwise,
    layers.DepthwiseConv2D: _depthwise,
    keras.layers.SeparableConv1D: _separable,
    keras.layers.SeparableConv2D: _separable,
    layers.SeparableConv1D: _separable,
    layers.SeparableConv2D: _separable,
    keras.layers.Conv1D: _ordinary,
    keras.layers.Conv2D: _ordinary,
    layers.Conv2D: _ordinary,
    layers.FusedConv2D: _fused_layer,
    FusedConvolution: _fused_convolution,
    Stock: _stock,
    keras.layers.Dense: _dense,
}
