"""Copies a model with our layers replaced by Keras' own."""

from __future__ import annotations

from typing import Any

import keras

from sepconv.layers import BatchNormalization, Conv2D
from sepconv.layers.saving import OURS
from sepconv.models.copying import copy_model, named_layers, settle_jit
from sepconv.models.verify import check_copy

__all__ = ["to_stock"]


def to_stock(model: keras.Model, *, verify: Any = True) -> keras.Model:
    """Copies a model with Keras' own layers in place of sepconv's, for export or sharing.

    The inverse of `accelerate`: classes, names, weights, trainable flags, random states and
    compilation stay. The copy does not depend on sepconv, so ``to_stock(model).export(path,
    format="onnx")``, and ``"litert"``, write the same as for Keras' layers. A file for a machine
    without sepconv needs no copy: see `sepconv.layers.stock_objects`.

    Args:
        model: a Keras model.
        verify: whether to compare the copy's predictions with the model's before it is returned.
            True makes inputs for the model; or inputs, as arrays that it takes.

    Returns:
        The new model, which shares no state with `model`.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: the model cannot be copied, a layer does what Keras' own cannot, or the copy
            predicts something else; the message names the layer.

    Example:
        >>> import keras, sepconv
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), sepconv.layers.DepthwiseConv2D(3)])
        >>> type(sepconv.to_stock(model).layers[0]) is keras.layers.DepthwiseConv2D
        True
    """
    copy = copy_model(model)
    for name, layer in named_layers(copy):
        if not type(layer).__module__.startswith("sepconv."):
            continue
        if type(layer) not in OURS.values():
            raise ValueError(
                f"The layer {name!r} has no counterpart in Keras. Received: {type(layer).__name__}"
            )
        _check(name, layer)
        layer.become_stock()
    settle_jit(copy)
    # Keras exports only models that were called. A built one needs no call.
    copy._called = copy.built
    check_copy(model, copy, verify, title="to_stock")
    return copy


def _check(name: str, layer: keras.layers.Layer) -> None:
    """Raises where Keras' layer cannot compute the same as ours."""
    if isinstance(layer, BatchNormalization):
        return
    if layer.padding not in ("valid", "same"):
        raise ValueError(
            f"The layer {name!r} pads as Keras' {type(layer).__name__} cannot, which knows "
            "'valid' and 'same'; a layer of padding before one that is 'valid' says the same. "
            f"Received: padding={layer.padding!r}"
        )
    depthwise = not isinstance(layer, Conv2D)
    if depthwise and keras.backend.backend() == "tensorflow" and len(set(layer.strides)) > 1:
        raise ValueError(
            f"The layer {name!r} has strides that differ, which Keras' {type(layer).__name__} "
            f"does not compute on TensorFlow. Received: strides={layer.strides}"
        )
