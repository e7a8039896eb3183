"""Takes the steps of a float network apart, so that every value that int8 rounds is a value of it.

A separable convolution rounds between its two parts, and an activation that is a table is looked
up from a rounded number; so these become steps of their own: atoms. Atoms are a network like any
other, which computes the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sepconv.program.network import Network, Step

__all__ = ["CLAMPS", "Atoms", "channel_axis", "consumers", "split"]

#: Activations of a convolution that clamp a sum, with the greatest result; others become tables.
CLAMPS = {"none": None, "relu": np.inf, "relu6": 6.0}


class Atoms(NamedTuple):
    """A network of atoms.

    Attributes:
        network: which computes what the whole one does.
        blocks: of every step, the number of the step of the whole network that it is a part of.
    """

    network: Network
    blocks: Sequence[int]


class _Writer:
    """Atoms that are being written."""

    def __init__(self, network: Network) -> None:
        self.steps: list[Step] = []
        self.blocks: list[int] = []
        self.block = 0
        self._first = len(network.inputs)

    def emit(self, step: Step) -> int:
        """Appends a step and returns the number of its value."""
        self.steps.append(step)
        self.blocks.append(self.block)
        return self._first + len(self.steps) - 1


def split(network: Network) -> Atoms:
    """The atoms of a network.

    Example:
        >>> from sepconv.program.network import Input
        >>> attributes = {"spec": [1, 1, 1, 1, 0, 0, 0, 0, 0, 0], "activation": "silu"}
        >>> attributes["depthwise_activation"] = "relu6"
        >>> weights = {"depthwise_kernel": 0, "pointwise_kernel": 1}
        >>> step = Step("convolution", "block", [0], attributes, weights)
        >>> tensors = [np.ones((3, 3, 2, 1), "float32"), np.ones((1, 1, 2, 4), "float32")]
        >>> whole = Network("float32", [Input("x", (None, 5, 5, 2))], [step], [1], ["y"], tensors)
        >>> [step.operation for step in split(whole).network.steps]
        ['convolution', 'convolution', 'unary']
    """
    writer = _Writer(network)
    numbers = {i: i for i in range(len(network.inputs))}
    for i, step in enumerate(network.steps):
        writer.block = i
        moved = step._replace(inputs=[numbers[value] for value in step.inputs])
        numbers[len(network.inputs) + i] = _split_step(writer, moved)
    outputs = [numbers[value] for value in network.outputs]
    return Atoms(network._replace(steps=writer.steps, outputs=outputs), writer.blocks)


def _split_step(writer: _Writer, step: Step) -> int:
    if step.operation == "convolution":
        return _split_convolution(writer, step)
    if step.operation == "dense":
        return _split_dense(writer, step)
    return writer.emit(step)


def _split_convolution(writer: _Writer, step: Step) -> int:
    given, parts = dict(step.attributes), dict(step.weights)
    if {"depthwise_kernel", "pointwise_kernel"} <= parts.keys():
        own = {"depthwise_kernel": parts.pop("depthwise_kernel")}
        if "depthwise_bias" in parts:
            own["bias"] = parts.pop("depthwise_bias")
        first = given | {"activation": given["depthwise_activation"]}
        first["depthwise_activation"] = "none"
        middle = _active(
            writer, step._replace(inputs=step.inputs[:1], attributes=first, weights=own)
        )
        given["spec"] = (1, 1, 1, 1, 0, 0, 0, 0, 0, given["spec"][9])
        step = step._replace(inputs=[middle, *step.inputs[1:]])
    given["depthwise_activation"] = "none"
    return _active(writer, step._replace(attributes=given, weights=parts))


def _split_dense(writer: _Writer, step: Step) -> int:
    if len(step.inputs) == 1:
        return _active(writer, step)
    plain = step._replace(inputs=step.inputs[:1], attributes={"activation": "none"})
    y = writer.emit(plain)
    added = Step("binary", step.name, [y, step.inputs[1]], {"function": "add"})
    return _unary(writer, step.name, writer.emit(added), step.attributes["activation"])


def _active(writer: _Writer, step: Step) -> int:
    """A step, and its activation apart where that is no clamp."""
    activation = step.attributes["activation"]
    if activation in CLAMPS:
        return writer.emit(step)
    given = {**step.attributes, "activation": "none"}
    return _unary(writer, step.name, writer.emit(step._replace(attributes=given)), activation)


def _unary(writer: _Writer, name: str, x: int, activation: str) -> int:
    if activation == "none":
        return x
    largest = CLAMPS.get(activation) or 0.0
    function = "relu" if activation in CLAMPS else activation
    given: dict[str, Any] = {"function": function, "a": 0.0, "b": largest, "c": 0.0}
    return writer.emit(Step("unary", name, [x], given))


def consumers(network: Network) -> list[list[int]]:
    """Of every value, the numbers of the steps that take it; the network's outputs are step -1."""
    found: list[list[int]] = [[] for _ in range(len(network.inputs) + len(network.steps))]
    for i, step in enumerate(network.steps):
        for value in step.inputs:
            found[value].append(i)
    for value in network.outputs:
        found[value].append(-1)
    return found


def channel_axis(step: Step, rank: int) -> int:
    """The axis of the channels that a convolution, dense or scale step takes and gives."""
    if step.operation == "convolution":
        return 1 if step.attributes["spec"][9] else rank - 1
    return int(step.attributes["axis"]) if step.operation == "scale" else rank - 1
