"""`sepconv.quantize` of Keras models: int8, or to be trained before that, and frozen then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from sepconv.layers.program_layer import ProgramLayer
from sepconv.layers.trainable_int8 import TrainableInt8
from sepconv.models.copying import copy_model, is_open, settle_jit
from sepconv.models.lowering import lower
from sepconv.models.structures import structured
from sepconv.quantization.quantize import Quantized, given, quantize_network
from sepconv.quantization.record import Record

__all__ = ["model_of", "quantize", "trainable_layers"]

#: The name of the layer that is the whole network.
_NAME = "int8"


def quantize(
    model: Any,
    calibration: Any = None,
    *,
    keep: Sequence[str] = (),
    tolerance: float | None = None,
    trainable: bool = False,
) -> Quantized:
    """An int8 model of a Keras model: see `sepconv.quantize`.

    Args:
        model: a built Sequential or Functional model, also one that `sepconv.optimize` made; or one
            with the layer of a model that was made with `trainable`, to be frozen.
        calibration: see there.
        keep: see there.
        tolerance: see there.
        trainable: see there.

    Returns:
        `model`, a Keras model of one layer, a `sepconv.layers.ProgramLayer`, or with `trainable` a
        `sepconv.layers.TrainableInt8`, with the inputs and outputs of the model that was given. Of
        a trained one, a copy with `ProgramLayer` in the place of that. And `record`.

    Raises:
        TypeError: the model is no Sequential or Functional one, or the data is of another kind.
        ValueError: see there.
    """
    if trainable_layers(model):
        return _frozen(model, calibration, keep, tolerance, trainable)
    network = lower(model, "float32")
    found = quantize_network(network, given(calibration), keep, tolerance)
    layer: keras.layers.Layer
    if trainable:
        config = found.record.as_config()
        layer = TrainableInt8.of(found.network, found.origin, config, name=_NAME)
    else:
        layer = ProgramLayer(found.program(), name=_NAME)
    return Quantized(model_of(layer, model, f"{model.name}_int8"), found.record)


def trainable_layers(model: Any) -> list[TrainableInt8]:
    """The layers of a model that are int8 networks to be trained."""
    if not isinstance(model, keras.Model):
        return []
    return [layer for layer in model._flatten_layers() if isinstance(layer, TrainableInt8)]


def model_of(layer: keras.layers.Layer, model: Any, name: str) -> keras.Model:
    """A model of one layer that takes and gives what another model does."""
    inputs = [
        keras.Input(batch_shape=tensor.shape, name=tensor.name, dtype="float32")
        for tensor in model.inputs
    ]
    outputs = keras.tree.flatten(layer(inputs[0] if len(inputs) == 1 else inputs))
    return structured(inputs, outputs, model, name)


def _frozen(
    model: keras.Model,
    calibration: Any,
    keep: Sequence[str],
    tolerance: float | None,
    trainable: bool,
) -> Quantized:
    """A copy of a model with int8 layers for those that were trained."""
    given = {"calibration": calibration, "keep": keep or None, "tolerance": tolerance}
    given["trainable"] = trainable or None
    extra = [f"{name}=..." for name, value in given.items() if value is not None]
    if extra:
        raise ValueError(
            f"The model {model.name!r} was made with trainable=True, and quantize freezes it, with "
            "the scales that it was trained with: it takes the model alone. Received: "
            f"{', '.join(extra)}"
        )
    layers = trainable_layers(model)
    if not is_open(model):
        raise TypeError(
            "The model around a layer that is to be frozen must be a Sequential or Functional "
            f"one. Received: {type(model).__name__}"
        )
    made = {id(layer): ProgramLayer(layer.program(), name=layer.name) for layer in layers}
    copy = copy_model(model, made)
    settle_jit(copy)
    blocks = [block for layer in layers for block in layer.record["blocks"]]
    return Quantized(copy, Record.of_trained({**layers[0].record, "blocks": blocks}))
