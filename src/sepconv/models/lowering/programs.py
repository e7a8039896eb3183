"""Layers that are programs already: their steps become steps of the new network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from sepconv.layers.program_layer import ProgramLayer
from sepconv.models.graph import Graph
from sepconv.models.lowering.call import Call
from sepconv.program import file
from sepconv.program.dtypes import value_dtypes

__all__ = ["LAYERS", "whole_program"]


def _program(call: Call) -> Any:
    args, kwargs = call.step.arguments
    given = keras.tree.flatten(args)
    if given != call.step.inputs or any(value not in (None, False) for value in kwargs.values()):
        call.refuse("it is called with something else than a list of tensors")
    network = _contents(call.layer).network
    others = sorted(set(value_dtypes(network)) - {network.dtype})
    if others:
        call.refuse(f"its program has values of {', '.join(others)}, as only a whole program may")
    builder, around = call.builder, call.builder.name
    numbers = [call.numbers[value] for value in call.step.inputs]
    for step in network.steps:
        builder.name = f"{around}/{step.name}"
        weights = {part: network.tensors[i] for part, i in step.weights.items()}
        inputs = [numbers[i] for i in step.inputs]
        numbers.append(builder.emit(step.operation, inputs, step.attributes, weights))
    return [numbers[i] for i in network.outputs]


def _contents(layer: ProgramLayer) -> file.Contents:
    return file.decode(layer.program_file, f"The layer {layer.name!r}")


def whole_program(graph: Graph, dtype: str | None) -> file.Contents | None:
    """The file of a model that is one such layer and nothing else, as it is; else None.

    Args:
        graph: of the model.
        dtype: to compute in; None for the model's own.
    """
    if len(graph.steps) != 1 or type(graph.steps[0].operation) is not ProgramLayer:
        return None
    (step,) = graph.steps
    if step.inputs != graph.inputs or step.outputs != graph.outputs:
        return None
    contents = _contents(step.operation)
    return contents if dtype in (None, contents.network.dtype) else None


LAYERS: dict[type, Callable[[Call], Any]] = {ProgramLayer: _program}
