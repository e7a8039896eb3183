"""The cost of a layer: multiply-adds, bytes, and those of an ordinary convolution in its place.

With P output positions, k the kernel's size (height times width), C input and F output channels,
and D = C times the depth multiplier, the multiply-adds of one call are, as papers count them:

    depthwise     P k D                 the ordinary convolution in its place: P k C D
    separable     P k D + P D F         the ordinary convolution in its place: P k C F
    convolution   P k C F / groups      the same without groups:               P k C F
    transposed    P k C F, where P counts the positions of the input
    dense         P C F

For the floor of the time, kernel positions in the padding are left out, since they need no work,
and the bytes are those of input, output and weights, each moved once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

from sepconv import layers
from sepconv.geometry import conv_spec, conv_spec_1d, resolve
from sepconv.models.watching import watched

__all__ = ["Call", "Cost", "calls", "cost"]

_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
_CONVOLUTION = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_KINDS = {
    "depthwise": _DEPTHWISE,
    "separable": _SEPARABLE,
    "convolution": _CONVOLUTION,
    "transposed": _TRANSPOSED,
    "dense": (keras.layers.Dense,),
}


class Call(NamedTuple):
    """One use of a layer in a network.

    Attributes:
        layer: the layer.
        name: its name, with those of the models around it.
        kind: "depthwise", "separable", "convolution", "transposed" or "dense".
        input_shapes: of the tensors it is called with, with the batch; the first is the one that
            is convolved, the others (a residual) are added.
        output_shape: with the batch.
        first: whether this is the layer's first use, which the weights are counted with.
    """

    layer: Any
    name: str
    kind: str
    input_shapes: tuple[tuple[int, ...], ...]
    output_shape: tuple[int, ...]
    first: bool


class Cost(NamedTuple):
    """The cost of a call.

    Attributes:
        parameters: the layer's weights; 0 at uses after the first.
        multiply_adds: as papers count them, padding and all.
        standard: those of an ordinary convolution with the same kernel, input and output.
        operations: floating-point operations that cannot be left out, two a multiply-add.
        bytes: those of input, output and weights.
    """

    parameters: int
    multiply_adds: int
    standard: int
    operations: int
    bytes: int


def calls(model: Any, predict: Callable[[], Any]) -> list[Call]:
    """The uses of convolutions and dense layers in one prediction, in the order of computing.

    Args:
        model: any Keras model.
        predict: a function that makes the model predict. This must be the first time, so that an
            engine that traces does so.
    """
    names = dict(_layers(model))
    found: list[Call] = []

    def seen(layer: Any, given: tuple[Any, ...], output: Any) -> None:
        shapes = tuple(_shape(tensor) for tensor in given if hasattr(tensor, "shape"))
        first = all(other.layer is not layer for other in found)
        kind = _kind(layer) or ""
        found.append(Call(layer, names[layer], kind, shapes, _shape(output), first))

    with watched(names, seen):
        predict()
    return found


def _kind(layer: Any) -> str | None:
    if isinstance(layer, layers.FusedConv2D):
        if layer.kernel_size is None or layer.depth_multiplier is None:
            return "convolution"
        return "depthwise" if layer.filters is None else "separable"
    return next((kind for kind, classes in _KINDS.items() if isinstance(layer, classes)), None)


def _layers(model: Any, prefix: str = "") -> Iterator[tuple[Any, str]]:
    """The convolutions and dense layers of a model and its nested models, with their names."""
    parts = model.layers if isinstance(model, keras.Model) else model._layers
    for layer in parts:
        name = f"{prefix}{layer.name}"
        if _kind(layer):
            yield layer, name
        else:
            yield from _layers(layer, f"{name}/")


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.shape)


def cost(call: Call) -> Cost:
    """The cost of a call; see the top of this file.

    Example:
        >>> layer = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)
        >>> layer.build((1, 8, 8, 4))
        >>> call = Call(layer, "dw", "depthwise", ((1, 8, 8, 4),), (1, 8, 8, 4), True)
        >>> cost(call)[:3]
        (36, 2304, 9216)
    """
    layer, kind = call.layer, call.kind
    parameters = layer.count_params()
    if kind == "dense":
        multiply_adds = standard = math.prod(call.output_shape) * call.input_shapes[0][-1]
        needed = multiply_adds
    else:
        multiply_adds, standard, needed = _convolution(call)
    sizes = sum(map(math.prod, (*call.input_shapes, call.output_shape))) + parameters
    width = _bytes(layer.compute_dtype)
    return Cost(parameters * call.first, multiply_adds, standard, 2 * needed, width * sizes)


def _bytes(dtype: str) -> int:
    return {"float64": 8, "float16": 2, "bfloat16": 2}.get(dtype, 4)


def _convolution(call: Call) -> tuple[int, int, int]:
    """Multiply-adds: as papers count them, of an ordinary convolution, and without the padding."""
    layer = call.layer
    channels, _ = _split(layer, call.input_shapes[0])
    outputs, space = _split(layer, call.output_shape)
    positions = call.output_shape[0] * math.prod(space)
    kernel = math.prod(_kernel_size(layer))
    if call.kind == "transposed":
        _, inputs = _split(layer, call.input_shapes[0])
        needed = call.output_shape[0] * math.prod(inputs) * kernel * channels * outputs
        return needed, needed, needed
    taps = call.output_shape[0] * _taps(call)
    if call.kind == "convolution":
        inner = channels // getattr(layer, "groups", 1) * outputs
        return (
            positions * kernel * inner,
            positions * kernel * channels * outputs,
            taps * inner,
        )
    middle = channels * layer.depth_multiplier
    mixing = positions * middle * outputs if call.kind == "separable" else 0
    return (
        positions * kernel * middle + mixing,
        positions * kernel * channels * outputs,
        taps * middle + mixing,
    )


def _split(layer: Any, shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """The channels, and the sizes of the spatial axes."""
    if layer.data_format == "channels_first":
        return shape[1], shape[2:]
    return shape[-1], shape[1:-1]


def _kernel_size(layer: Any) -> tuple[int, ...]:
    """The size on the spatial axes; 1x1 for a fused layer without a depthwise convolution."""
    return layer.kernel_size or (1, 1)


def _taps(call: Call) -> int:
    """Pairs of an output position and a kernel position that lies on the input, in one example."""
    layer = call.layer
    _, sizes = _split(layer, call.input_shapes[0])
    _, outputs = _split(layer, call.output_shape)
    kernel, before = _kernel_size(layer), _padding_before(layer, sizes)
    product = 1
    for axis in range(len(sizes)):
        stride, dilation = layer.strides[axis], layer.dilation_rate[axis]
        product *= sum(
            0 <= p * stride + i * dilation - before[axis] < sizes[axis]
            for p in range(outputs[axis])
            for i in range(kernel[axis])
        )
    return product


def _padding_before(layer: Any, sizes: tuple[int, ...]) -> list[int]:
    """Positions of padding before the input, for each spatial axis."""
    kernel = _kernel_size(layer)
    if len(sizes) == 2:
        spec = conv_spec(layer.strides, layer.padding, layer.dilation_rate)
        return [pads[0] for pads in resolve(spec, (1, *sizes, 1), (*kernel, 1, 1)).pads]
    axes = zip(kernel, layer.strides, layer.dilation_rate, sizes, strict=True)
    return [
        resolve(conv_spec_1d(k, s, layer.padding, d), (1, 1, n, 1), (1, k, 1, 1)).pads[1][0]
        for k, s, d, n in axes
    ]
