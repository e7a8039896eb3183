"""Pooling, over windows and over whole images."""

from __future__ import annotations

from collections.abc import Callable

import keras

from sepconv.geometry import conv_spec, conv_spec_1d
from sepconv.models.lowering.call import Call

__all__ = ["LAYERS"]


def _windows(function: str) -> Callable[[Call], int]:
    def write(call: Call) -> int:
        layer, x = call.layer, call.x
        window, padding = tuple(layer.pool_size), layer.padding
        if function == "average" and padding == "same" and keras.backend.backend() == "torch":
            x, padding = _repeat_edges(call, x)
        if len(window) == 1:
            spec = conv_spec_1d(window[0], layer.strides, padding, 1, layer.data_format)
        else:
            spec = conv_spec(layer.strides, padding, 1, layer.data_format)
        attributes = {
            "function": function,
            "window": [1] * (2 - len(window)) + list(window),
            "spec": list(spec),
        }
        return call.builder.emit("pool", [x], attributes)

    return write


def _repeat_edges(call: Call, x: int) -> tuple[int, str]:
    """What Keras averages on PyTorch where it pads one side more than the other: edges, repeated.

    Returns:
        The value to average, and the padding that is left to do.
    """
    layer, builder = call.layer, call.builder
    first = 2 if layer.data_format == "channels_first" else 1
    pads = []
    for axis, (k, stride) in enumerate(zip(layer.pool_size, layer.strides, strict=True), first):
        size = call.shape[axis]
        if size is None:
            call.refuse("on PyTorch, what it averages at edges depends on sizes that are not known")
        total = max((-(-size // stride) - 1) * stride + k - size, 0)
        pads.append((axis, total // 2, total - total // 2, size))
    if all(before == after for _, before, after, _ in pads):
        return x, "same"
    for axis, before, after, size in pads:
        low = [builder.slice(x, {axis: (0, 1, 1)})] * before if before else []
        high = [builder.slice(x, {axis: (size - 1, size, 1)})] * after if after else []
        if low or high:
            x = builder.concatenate([*low, x, *high], axis)
    return x, "valid"


def _whole(function: str) -> Callable[[Call], int]:
    def write(call: Call) -> int:
        first = 2 if call.layer.data_format == "channels_first" else 1
        axes = range(first, first + call.rank - 2)
        return call.builder.reduce(call.x, function, axes, call.layer.keepdims)

    return write


LAYERS: dict[type, Callable[[Call], int]] = {
    keras.layers.AveragePooling1D: _windows("average"),
    keras.layers.AveragePooling2D: _windows("average"),
    keras.layers.MaxPooling1D: _windows("max"),
    keras.layers.MaxPooling2D: _windows("max"),
    keras.layers.GlobalAveragePooling1D: _whole("mean"),
    keras.layers.GlobalAveragePooling2D: _whole("mean"),
    keras.layers.GlobalMaxPooling1D: _whole("max"),
    keras.layers.GlobalMaxPooling2D: _whole("max"),
}
