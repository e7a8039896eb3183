"""Layers that move elements: padding, cropping, reshaping, enlarging."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from sepconv.models.lowering.call import Call
from sepconv.program.shapes import Shape

__all__ = ["LAYERS", "to_shape"]


def _pairs(layer: Any, name: str) -> list[tuple[int, int]]:
    """(before, after) for each spatial axis."""
    given = getattr(layer, name)
    return [tuple(given)] if isinstance(given[0], int) else [tuple(pair) for pair in given]


def _first_axis(layer: Any) -> int:
    """The first spatial axis."""
    return 2 if getattr(layer, "data_format", None) == "channels_first" else 1


def _zero_padding(call: Call) -> int:
    around = [(0, 0)] * call.rank
    for axis, pair in enumerate(_pairs(call.layer, "padding"), _first_axis(call.layer)):
        around[axis] = pair
    return call.builder.pad(call.x, around)


def _cropping(call: Call) -> int:
    pairs = enumerate(_pairs(call.layer, "cropping"), _first_axis(call.layer))
    bounds = {axis: (before, -after if after else None, 1) for axis, (before, after) in pairs}
    return call.builder.slice(call.x, bounds)


def _up_sampling(call: Call) -> int:
    layer, builder, x = call.layer, call.builder, call.x
    kind = getattr(layer, "interpolation", "nearest")
    if kind not in ("nearest", "bilinear"):
        call.refuse(f"its interpolation {kind!r} is not known")
    size = layer.size
    attributes = {
        "interpolation": kind,
        "factors": [1, int(size)] if isinstance(size, int) else [int(n) for n in size],
        "channels_first": getattr(layer, "data_format", None) == "channels_first",
    }
    if call.rank == 4:
        return builder.emit("resize", [x], attributes)
    channels = call.shape[2]  # [N, L, C], as an image one pixel high
    if channels is None:
        call.refuse("the number of its channels must be known")
    image = builder.reshape(x, [0, 1, -1, channels])
    y = builder.emit("resize", [image], attributes)
    return builder.reshape(y, [0, -1, channels])


def to_shape(call: Call, x: int, shape: Shape) -> int:
    """A value in another shape of the same batch, of which one size may be unknown."""
    sizes = [0, *(-1 if size is None else size for size in shape[1:])]
    assert sizes.count(-1) <= 1  # Keras works out all others
    return call.builder.reshape(x, sizes)


def _reshape(call: Call) -> int:
    return to_shape(call, call.x, call.step.output.shape)


def _flatten(call: Call) -> int:
    x = call.x
    if call.layer.data_format == "channels_first" and call.rank > 2:
        x = call.builder.transpose(x, [0, *range(2, call.rank), 1])
    if call.rank == 1:
        return call.builder.reshape(x, [0, 1])
    return call.builder.reshape(x, [0, -1])


def _permute(call: Call) -> int:
    return call.builder.transpose(call.x, [0, *call.layer.dims])


def _repeat_vector(call: Call) -> int:
    one = to_shape(call, call.x, (None, 1, call.shape[1]))
    return call.builder.concatenate([one] * call.layer.n, 1)


LAYERS: dict[type, Callable[[Call], int]] = {
    keras.layers.ZeroPadding1D: _zero_padding,
    keras.layers.ZeroPadding2D: _zero_padding,
    keras.layers.Cropping1D: _cropping,
    keras.layers.Cropping2D: _cropping,
    keras.layers.UpSampling1D: _up_sampling,
    keras.layers.UpSampling2D: _up_sampling,
    keras.layers.Reshape: _reshape,
    keras.layers.Flatten: _flatten,
    keras.layers.Permute: _permute,
    keras.layers.RepeatVector: _repeat_vector,
}
