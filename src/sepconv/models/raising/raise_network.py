"""Makes a Keras model of a float network, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from sepconv.layers.steps import floats
from sepconv.models.raising.call import Call
from sepconv.models.raising.layers import LAYERS
from sepconv.models.raising.moving import MOVING
from sepconv.program.network import Network

__all__ = ["raise_network"]


def raise_network(network: Network, name: str) -> keras.Model:
    """A Keras model of a float32 network, of Keras' own layers and no other.

    Where Keras has an operation and no layer, as for the square root, the model has the operation.

    Args:
        network: of float32 values alone.
        name: of the model.

    Returns:
        A Functional model that depends on sepconv in nothing.

    Raises:
        ValueError: a step has no counterpart; the message names it.

    Example:
        >>> from sepconv.program.network import Input, Step
        >>> step = Step("dense", "classes", [0], {"activation": "relu"}, {"kernel": 0})
        >>> tensors = [np.ones((4, 3), "float32")]
        >>> network = Network("float32", [Input("x", (None, 4))], [step], [1], ["y"], tensors)
        >>> [type(layer).__name__ for layer in raise_network(network, "small").layers]
        ['InputLayer', 'Dense']
    """
    naming = _names(set())
    inputs = [
        keras.Input(batch_shape=entry.shape, name=naming(entry.name), dtype="float32")
        for entry in network.inputs
    ]
    values: list[Any] = list(inputs)
    for step in network.steps:
        weights = {part: np.array(network.tensors[n]) for part, n in step.weights.items()}
        call = Call(step, weights, [values[value] for value in step.inputs], naming)
        values.append(_raised(call))
    outputs = [
        keras.layers.Identity(name=naming(output))(values[number])
        if number < len(inputs)
        else values[number]
        for number, output in zip(network.outputs, network.output_names, strict=True)
    ]
    return keras.Model(
        inputs[0] if len(inputs) == 1 else inputs,
        outputs[0] if len(outputs) == 1 else outputs,
        name=name,
    )


def _raised(call: Call) -> Any:
    """What a step gives."""
    operation = call.step.operation
    if operation == "constant":
        return call.weights["value"]
    if not any(isinstance(x, keras.KerasTensor) for x in call.inputs):
        found = floats.compute(call.step, call.weights, call.inputs)
        return keras.ops.convert_to_numpy(found)
    write = LAYERS.get(operation) or MOVING.get(operation)
    y = None if write is None else write(call)
    return floats.compute(call.step, call.weights, call.inputs) if y is None else y


def _names(taken: set[str]) -> Callable[[str], str]:
    """Gives each layer a name of its own, near the one that is asked for."""

    def name(wanted: str) -> str:
        plain = wanted.replace("/", "_")
        found, count = plain, 1
        while found in taken:
            count += 1
            found = f"{plain}_{count}"
        taken.add(found)
        return found

    return name
