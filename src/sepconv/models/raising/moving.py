"""Pooling, and steps that move numbers, as layers of Keras'."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from sepconv.geometry import ConvSpec
from sepconv.models.raising.call import Call

__all__ = ["MOVING"]

_POOLS = {
    ("max", 2): layers.MaxPooling2D,
    ("max", 1): layers.MaxPooling1D,
    ("average", 2): layers.AveragePooling2D,
    ("average", 1): layers.AveragePooling1D,
}
_GLOBAL_POOLS = {
    ("max", 2): layers.GlobalMaxPooling2D,
    ("max", 1): layers.GlobalMaxPooling1D,
    ("mean", 2): layers.GlobalAveragePooling2D,
    ("mean", 1): layers.GlobalAveragePooling1D,
}


def _pool(call: Call) -> Any:
    spec, rank, x = ConvSpec(*call.given["spec"]), len(call.x.shape) - 2, call.x
    function = call.given["function"]
    if max(spec[2:4]) > 1:
        call.refuse("windows with dilation")
    around = [(spec.pad_top, spec.pad_bottom), (spec.pad_left, spec.pad_right)][2 - rank :]
    if any(map(any, around)):
        if function == "average":
            call.refuse("a mean of the pixels inside of an image with explicit padding")
        ends = [(0, 0)]
        pairs = [*ends, *ends, *around] if spec.channels_first else [*ends, *around, *ends]
        x = ops.pad(x, pairs, constant_values=-math.inf)
    size, strides = (tuple(pair)[2 - rank :] for pair in (call.given["window"], spec[0:2]))
    return call.layer(
        _POOLS[function, rank],
        x,
        pool_size=size if rank == 2 else size[0],
        strides=strides if rank == 2 else strides[0],
        padding="same" if spec.same else "valid",
        data_format=spec.data_format,
    )


def _reduce(call: Call) -> Any:
    rank, axes = len(call.x.shape), tuple(call.given["axes"])
    kind = _GLOBAL_POOLS.get((call.given["function"], rank - 2))
    for data_format, first in (("channels_last", 1), ("channels_first", 2)):
        if kind is not None and axes == tuple(range(first, first + rank - 2)):
            keepdims = call.given["keepdims"]
            return call.layer(kind, call.x, data_format=data_format, keepdims=keepdims)
    return None


def _concatenate(call: Call) -> Any:
    if len(call.inputs) == 1:
        return call.x
    if not all(isinstance(x, keras.KerasTensor) for x in call.inputs):
        return None
    return call.layer(layers.Concatenate, list(call.inputs), axis=call.given["axis"])


def _pad(call: Call) -> Any:
    around = list(zip(call.given["before"], call.given["after"], strict=True))
    rank = len(around) - 2
    if call.given["value"] != 0 or rank not in (1, 2):
        return None
    kind = layers.ZeroPadding2D if rank == 2 else layers.ZeroPadding1D
    for data_format, first in (("channels_last", 1), ("channels_first", 2)):
        inner = around[first : first + rank]
        if sum(map(sum, inner)) == sum(map(sum, around)):
            padding = tuple(inner) if rank == 2 else inner[0]
            return call.layer(kind, call.x, padding=padding, data_format=data_format)
    return None


def _slice(call: Call) -> Any:
    starts, stops, steps = (call.given[name] for name in ("starts", "stops", "steps"))
    rank = len(starts) - 2
    ends = [0 if stop is None else -stop for stop in stops]
    if rank not in (1, 2) or set(steps) != {1} or min(starts) < 0 or min(ends) < 0:
        return None
    cut = list(zip(starts, ends, strict=True))
    kind = layers.Cropping2D if rank == 2 else layers.Cropping1D
    if sum(map(sum, cut[1:-1])) != sum(map(sum, cut)):
        return None
    cropping = tuple(cut[1:-1]) if rank == 2 else cut[1]
    return call.layer(kind, call.x, cropping=cropping)


def _transpose(call: Call) -> Any:
    first, *rest = call.given["permutation"]
    return None if first != 0 else call.layer(layers.Permute, call.x, dims=tuple(rest))


def _reshape(call: Call) -> Any:
    first, *rest = call.given["shape"]
    sizes = [call.x.shape[i + 1] if n == 0 else n for i, n in enumerate(rest)]
    if first != 0 or None in sizes:
        return None
    return call.layer(layers.Reshape, call.x, target_shape=tuple(sizes))


def _resize(call: Call) -> Any:
    return call.layer(
        layers.UpSampling2D,
        call.x,
        size=tuple(call.given["factors"]),
        interpolation=call.given["interpolation"],
        data_format="channels_first" if call.given["channels_first"] else "channels_last",
    )


#: As `sepconv.models.raising.layers.LAYERS`.
MOVING: dict[str, Callable[[Call], Any]] = {
    "pool": _pool,
    "reduce": _reduce,
    "concatenate": _concatenate,
    "pad": _pad,
    "slice": _slice,
    "transpose": _transpose,
    "reshape": _reshape,
    "resize": _resize,
}
