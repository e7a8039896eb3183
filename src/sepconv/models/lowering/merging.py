"""Layers that make one value of several."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

from sepconv.models.lowering.call import Call

__all__ = ["LAYERS"]


def _merge(function: str) -> Callable[[Call], int]:
    def write(call: Call) -> int:
        first, *others = _of_one_rank(call)
        for other in others:
            first = call.builder.binary(function, first, other)
        return first

    return write


def _average(call: Call) -> int:
    return call.builder.linear(_merge("add")(call), 1 / len(call.xs))


def _of_one_rank(call: Call) -> list[int]:
    """The inputs; those with fewer axes than others get some of size 1 after the batch."""
    builder, xs = call.builder, call.xs
    rank = max(builder.rank(x) for x in xs)
    return [_expand(call, x, rank - builder.rank(x)) for x in xs]


def _expand(call: Call, x: int, count: int) -> int:
    if count == 0:
        return x
    sizes = call.builder.shapes[x]
    if None in sizes[1:]:
        call.refuse("the sizes of its inputs must be known where these have fewer axes than others")
    return call.builder.reshape(x, [0, *[1] * count, *(size or 0 for size in sizes[1:])])


def _custom_scale(call: Call) -> int:
    first, second = call.xs
    return call.builder.binary("add", first, call.builder.linear(second, call.layer.scale))


def _concatenate(call: Call) -> int:
    return call.builder.concatenate(call.xs, call.layer.axis)


LAYERS: dict[type, Callable[[Call], int]] = {
    keras.layers.Add: _merge("add"),
    keras.layers.Subtract: _merge("subtract"),
    keras.layers.Multiply: _merge("multiply"),
    keras.layers.Maximum: _merge("maximum"),
    keras.layers.Minimum: _merge("minimum"),
    keras.layers.Average: _average,
    keras.layers.Concatenate: _concatenate,
    CustomScaleLayer: _custom_scale,
}
