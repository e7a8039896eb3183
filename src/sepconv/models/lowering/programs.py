"""Layers that are programs already: their steps become steps of the new network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from sepconv.layers.program_layer import ProgramLayer
from sepconv.models.graph import Graph, Step, Value
from sepconv.models.lowering.call import Call
from sepconv.program import file
from sepconv.program.dtypes import value_dtypes
from sepconv.program.named import listed

__all__ = ["LAYERS", "program_inputs", "whole_program"]


def program_inputs(step: Step) -> list[Any]:
    """What a layer that is a network is called with, in the network's order."""
    args, kwargs = step.arguments
    given = args or (kwargs.get("inputs"),)
    return keras.tree.flatten(listed(given, step.operation.wanted, f"The layer {step.label!r}"))


def _program(call: Call) -> Any:
    _, kwargs = call.step.arguments
    given = program_inputs(call.step)
    strange = not all(isinstance(value, Value) for value in given)
    if strange or any(value not in (None, False) for value in kwargs.values()):
        call.refuse("it is called with something else than a list of tensors")
    network = _contents(call.layer).network
    others = sorted(set(value_dtypes(network)) - {network.dtype})
    if others:
        call.refuse(f"its program has values of {', '.join(others)}, as only a whole program may")
    builder, around = call.builder, call.builder.name
    numbers = [call.numbers[value] for value in given]
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
    if program_inputs(step) != graph.inputs or step.outputs != graph.outputs:
        return None
    contents = _contents(step.operation)
    return contents if dtype in (None, contents.network.dtype) else None


LAYERS: dict[type, Callable[[Call], Any]] = {ProgramLayer: _program}
