"""Copies a model with Keras' convolutions replaced by ours, where our kernels compute them."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras

from sepconv.arrays import DTYPES
from sepconv.layers import batch_normalization, ordinary
from sepconv.layers.saving import OURS
from sepconv.models.copying import copy_model, named_layers, settle_jit
from sepconv.models.record import Record
from sepconv.models.verify import check_copy

__all__ = ["Accelerated", "accelerate"]

#: The names that a Functional model's graph gives to Keras' functions used without a layer.
_FUNCTIONS = ("DepthwiseConv", "SeparableConv")


class Accelerated(NamedTuple):
    """The result of `accelerate`.

    Attributes:
        model: the new model.
        record: what was replaced, what was not, and why. It prints as a table.
    """

    model: keras.Model
    record: Record


def accelerate(model: keras.Model, *, verify: Any = True) -> Accelerated:
    """Copies a model, with sepconv's layers in the place of Keras' own of the same names.

    `SeparableConv1D`, `SeparableConv2D`, `DepthwiseConv1D` and `DepthwiseConv2D` are replaced
    wherever they are: in nested models, in wrappers such as `TimeDistributed`, in attributes of
    subclassed models. `Conv2D` and `BatchNormalization` are replaced where `sepconv.layers` compute
    them.
    The copy has the same class, names and weights, and all state that its objects hold, also what
    is in no config. It is compiled as the model is, and its optimizer continues from the state of
    the model's. It shares no state with the model, which stays as it was. A layer that holds
    something that cannot be copied, such as an open file, must be one that Keras can make from its
    config.

    The copy is verified: both models predict one batch, and an error is raised where they differ by
    more than rounding explains. Where the model's own predictions differ from run to run, the
    record says so.

    Args:
        model: a Sequential, Functional or subclassed Keras model.
        verify: whether to compare the copy's predictions with the model's before it is returned.
            True makes inputs for the model; or inputs, as arrays that it takes.

    Returns:
        The new model and the record.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: a layer can be neither copied nor made from its config, or the copy predicts
            something else; the message names the layer.

    Warns:
        UserWarning: no inputs can be made to verify the copy with; or the copy is not compiled,
            since what the model is compiled with cannot be copied.

    Example:
        >>> import keras, sepconv
        >>> stock = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.SeparableConv2D(4, 3, name="conv"),
        ...     keras.layers.Flatten(),
        ... ])
        >>> model, record = sepconv.accelerate(stock)
        >>> print(record)
        accelerate: 1 of 1 layers changed, verified
          yes  conv  SeparableConv2D  sepconv.layers.SeparableConv2D
        >>> isinstance(model.layers[0], sepconv.layers.SeparableConv2D)
        True
    """
    copy = copy_model(model)
    record = Record("accelerate")
    for name, layer in [("", copy), *named_layers(copy)]:
        if isinstance(layer, tuple(OURS)):
            kind = type(layer)
            reason = _reason_against(layer)
            if reason is None:
                OURS[kind].become(layer)
            record.add(
                name, kind.__name__, reason is None, reason or f"sepconv.layers.{kind.__name__}"
            )
        for operation in getattr(layer, "operations", ()):
            if type(operation).__name__ in _FUNCTIONS and operation.name:
                note = "a function of keras.ops, not a layer; sepconv.patch_keras() serves it"
                path = f"{name}/{operation.name}" if name else operation.name
                record.add(path, type(operation).__name__, False, note)
    settle_jit(copy)
    record.verification = check_copy(model, copy, verify, title="accelerate")
    return Accelerated(copy, record)


def _reason_against(layer: keras.layers.Layer) -> str | None:
    """Why a layer of one of Keras' classes, or derived from one, is not replaced; else None."""
    if isinstance(layer, tuple(OURS.values())):
        return "sepconv's already"
    if type(layer) not in OURS:
        return "a class of its own, which may compute something else"
    if type(layer) is keras.layers.Conv2D:
        return ordinary.layer_refusal(layer)
    if type(layer) is keras.layers.BatchNormalization:
        return batch_normalization.layer_refusal(layer)
    if layer.compute_dtype not in DTYPES:
        return f"computes in {layer.compute_dtype}"
    return None
