"""Layers that scale, shift and normalize; and those that do nothing at inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras.src.applications.convnext import LayerScale, StochasticDepth

from sepconv import layers
from sepconv.models.folding import affine_of
from sepconv.models.fusion import NOOPS
from sepconv.models.graph import Value
from sepconv.models.lowering.call import Call, array_of
from sepconv.program.building.constants import affine

__all__ = ["LAYERS", "NOTHING", "RESCALING"]


def _batch_normalization(call: Call) -> int:
    scale, shift = affine_of(call.layer)
    return call.builder.scale(call.x, call.layer.axis, scale, shift)


def _layer_normalization(call: Call) -> int:
    layer, rank = call.layer, call.rank
    if layer.rms_scaling:
        call.refuse("it scales by the root of mean squares")
    axes = sorted(axis % rank for axis in layer.axis)
    if axes != list(range(rank - len(axes), rank)):
        call.refuse(f"it normalizes over axes that are not the last ones: {layer.axis}")
    gamma, beta = (None if w is None else array_of(w) for w in (layer.gamma, layer.beta))
    return call.builder.layer_normalization(call.x, len(axes), layer.epsilon, gamma, beta)


def _group_normalization(call: Call) -> int:
    """Groups of channels as rows, normalized, and back."""
    layer, builder, x, rank = call.layer, call.builder, call.x, call.rank
    channels = call.shape[layer.axis]
    assert channels is not None
    # Channels second, so that the elements of a group are side by side.
    axis = layer.axis % rank
    order = [0, axis, *(i for i in range(1, rank) if i != axis)]
    turned = axis != 1
    if turned:
        x = builder.transpose(x, order)
    sizes = builder.shapes[x]
    if None in sizes[2:]:
        call.refuse("the sizes of its input must be known")
    y = builder.reshape(x, [0, layer.groups, -1])
    y = builder.layer_normalization(y, 1, layer.epsilon)
    y = builder.reshape(y, [0, *(size or 0 for size in sizes[1:])])
    if turned:
        y = builder.transpose(y, [order.index(i) for i in range(rank)])
    gamma, beta = (None if w is None else array_of(w) for w in (layer.gamma, layer.beta))
    return y if gamma is None and beta is None else builder.scale(y, axis, gamma, beta)


def _rms_normalization(call: Call) -> int:
    layer, builder, x = call.layer, call.builder, call.x
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    if [axis % call.rank for axis in axes] != [call.rank - 1]:
        # Keras scales along the last axis even so, or broadcasts.
        call.refuse(f"it normalizes over axes that are not the last one alone: {axes}")
    mean = builder.reduce(builder.unary(x, "square"), "mean", axes, True)
    inverse = builder.unary(builder.linear(mean, 1.0, layer.epsilon), "rsqrt")
    return builder.scale(builder.binary("multiply", x, inverse), axes[0], array_of(layer.scale))


def _unit_normalization(call: Call) -> int:
    axes = call.layer.axis if isinstance(call.layer.axis, list) else [call.layer.axis]
    builder, x = call.builder, call.x
    total = builder.reduce(builder.unary(x, "square"), "sum", axes, True)
    inverse = builder.unary(builder.unary(total, "rsqrt"), "clip", -np.inf, 1e12)
    return builder.binary("multiply", x, inverse)


def _rescaling(call: Call) -> int:
    layer = call.layer
    scale, shift = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
    if scale.ndim and keras.config.image_data_format() == "channels_first":
        scale = scale.reshape(scale.shape + (1,) * (3 - scale.ndim))
    return affine(call.builder, call.x, scale, shift)


def _normalization(call: Call) -> int:
    layer = call.layer
    mean, variance = (array_of(w).astype(np.float64) for w in (layer.mean, layer.variance))
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    if layer.invert:
        return affine(call.builder, call.x, deviation, mean)
    return affine(call.builder, call.x, 1 / deviation, -mean / deviation)


def _layer_scale(call: Call) -> int:
    return call.builder.scale(call.x, -1, array_of(call.layer.gamma))


def _nothing(call: Call) -> int:
    return call.x


def _augmentation(call: Call) -> int:
    # A graph has `training=True` for these, which is their default, and `predict` says otherwise.
    args, kwargs = call.step.arguments
    if len(args) != 1 or not isinstance(args[0], Value) or set(kwargs) - {"training"}:
        call.refuse("it is called with arguments that are not known")
    return call.numbers[args[0]]


_NOTHING: tuple[Any, ...] = (*NOOPS, StochasticDepth)

#: Layers that change images in training, and only then.
_AUGMENTATIONS = (
    keras.layers.RandomBrightness,
    keras.layers.RandomContrast,
    keras.layers.RandomFlip,
    keras.layers.RandomRotation,
    keras.layers.RandomTranslation,
    keras.layers.RandomZoom,
)

#: Layers that give what they are given at inference.
NOTHING: tuple[Any, ...] = (*_NOTHING, *_AUGMENTATIONS)

#: Layers that make floats of integers first.
RESCALING: tuple[Any, ...] = (keras.layers.Rescaling, keras.layers.Normalization)

LAYERS: dict[type, Callable[[Call], int]] = {
    keras.layers.BatchNormalization: _batch_normalization,
    layers.BatchNormalization: _batch_normalization,
    keras.layers.LayerNormalization: _layer_normalization,
    keras.layers.GroupNormalization: _group_normalization,
    keras.layers.RMSNormalization: _rms_normalization,
    keras.layers.UnitNormalization: _unit_normalization,
    keras.layers.Rescaling: _rescaling,
    keras.layers.Normalization: _normalization,
    LayerScale: _layer_scale,
    **dict.fromkeys(_NOTHING, _nothing),
    **dict.fromkeys(_AUGMENTATIONS, _augmentation),
}
