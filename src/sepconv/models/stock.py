"""Copies a model with our layers replaced by Keras' own."""

from __future__ import annotations

from typing import Any

import keras

from sepconv.layers import BatchNormalization, Conv2D, ProgramLayer, TrainableInt8
from sepconv.layers.saving import OURS
from sepconv.models.copying import copy_model, named_layers, settle_jit
from sepconv.models.graph import Graph
from sepconv.models.lowering.programs import program_inputs
from sepconv.models.quantize import model_of
from sepconv.models.raising import raise_network
from sepconv.models.structures import structured
from sepconv.models.verify import check_copy
from sepconv.program import file
from sepconv.program.program import Program
from sepconv.quantization.dequantized import dequantized
from sepconv.quantization.origin import origin_of

__all__ = ["to_stock"]


def to_stock(model: keras.Model, *, verify: Any = True) -> keras.Model:
    """Copies a model with Keras' own layers in place of sepconv's, for export or sharing.

    The inverse of `accelerate`: classes, names, weights, trainable flags, random states and
    compilation stay. Of an int8 model that `quantize` made, also one to be trained, it is a new
    float model, with the rounded weights, each exactly a whole number times its scale, whose values
    are not rounded. The copy does not depend on sepconv, so ``to_stock(model).export(path,
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
    layer = _int8_layer(model)
    if layer is not None:
        return _of_int8(model, layer, verify)
    copy = copy_model(model)
    for name, layer in named_layers(copy):
        if not type(layer).__module__.startswith("sepconv."):
            continue
        if type(layer) not in OURS.values():
            hint = ""
            if isinstance(layer, (ProgramLayer, TrainableInt8)):
                hint = ", but where it is all of a model, as sepconv.quantize makes it"
            raise ValueError(
                f"The layer {name!r} has no counterpart in Keras{hint}. "
                f"Received: {type(layer).__name__}"
            )
        _check(name, layer)
        layer.become_stock()
    settle_jit(copy)
    # Keras exports only models that were called. A built one needs no call.
    copy._called = copy.built
    check_copy(model, copy, verify, title="to_stock")
    return copy


def _int8_layer(model: Any) -> ProgramLayer | TrainableInt8 | None:
    """The layer of a model that is an int8 network and nothing else; else None."""
    if not isinstance(model, keras.Model):
        return None
    found = [x for x in model._flatten_layers() if isinstance(x, (ProgramLayer, TrainableInt8))]
    if len(found) != 1:
        return None
    try:
        graph = Graph(model)
    except (TypeError, ValueError):  # it cannot be looked into
        return None
    if len(graph.steps) != 1:
        return None
    (step,) = graph.steps
    whole = program_inputs(step) == graph.inputs and step.outputs == graph.outputs
    return found[0] if whole and step.operation is found[0] else None


def _of_int8(model: keras.Model, layer: ProgramLayer | TrainableInt8, verify: Any) -> keras.Model:
    """The float model of an int8 one, held against the program of the same float network."""
    title = f"The layer {layer.name!r}"
    if isinstance(layer, TrainableInt8):
        program = layer.program()
        network, notes = program.network, program.notes
    else:
        network, notes = file.decode(layer.program_file, title)
    floats = dequantized(network, origin_of(network, notes, title))
    raised = raise_network(floats, model.name)
    made = structured(raised.inputs, raised.outputs, model, model.name)
    check_copy(
        model_of(ProgramLayer(Program(floats)), model, model.name), made, verify, title="to_stock"
    )
    return made


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
