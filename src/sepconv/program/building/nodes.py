"""A network as nodes that can be changed, and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sepconv.program.building.builder import Builder
from sepconv.program.network import Network, Step
from sepconv.program.shapes import Shape, shape_of

__all__ = ["Node", "Nodes"]

_INPUT = "input"


@dataclass(eq=False)
class Node:
    """A step with the steps before it; or an input of the network, which is no step.

    Attributes:
        operation: as a step's.
        name: see there.
        inputs: the nodes that it takes.
        attributes: see there.
        weights: its tensors, by their part.
        shape: of its value.
    """

    operation: str
    name: str
    inputs: list[Node] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    shape: Shape = ()

    def is_unary(self, function: str) -> bool:
        """Whether it is this function of one array."""
        return self.operation == "unary" and self.attributes["function"] == function

    def is_binary(self, function: str) -> bool:
        """Whether it is this function of two arrays."""
        return self.operation == "binary" and self.attributes["function"] == function

    def as_step(self) -> Step:
        """Itself as a step, whose numbers mean nothing."""
        numbers = dict.fromkeys(self.weights, 0)
        return Step(self.operation, self.name, [], self.attributes, numbers)


class Nodes:
    """The nodes of a network, in an order in which they can be computed.

    Args:
        network: is not changed.

    Attributes:
        nodes: all that are steps.
        outputs: those that the network gives.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._inputs = [
            Node(_INPUT, entry.name, shape=tuple(entry.shape)) for entry in network.inputs
        ]
        found = list(self._inputs)
        for step in network.steps:
            weights = {part: network.tensors[i] for part, i in step.weights.items()}
            inputs = [found[i] for i in step.inputs]
            node = Node(step.operation, step.name, inputs, dict(step.attributes), weights)
            self.update(node)
            found.append(node)
        self.nodes = found[len(self._inputs) :]
        self.outputs = [found[i] for i in network.outputs]

    def update(self, node: Node) -> None:
        """Works out the shape of a node that was changed."""
        weights = {part: array.shape for part, array in node.weights.items()}
        node.shape = shape_of(node.as_step(), weights, [other.shape for other in node.inputs])

    def uses(self, node: Node) -> int:
        """How often a value is used, outputs included."""
        return sum(other.inputs.count(node) for other in self.nodes) + self.outputs.count(node)

    def only_input(self, node: Node) -> Node | None:
        """The first input of a node where nothing else uses that; else None."""
        before = node.inputs[0] if node.inputs else None
        return before if before is not None and self.uses(before) == 1 else None

    def change(self, node: Node, operation: str, **attributes: Any) -> None:
        """Makes another step of a node, with its inputs and without weights."""
        node.operation, node.attributes, node.weights = operation, attributes, {}
        self.update(node)

    def replace(self, gone: Node, by: Node) -> None:
        """Removes a node whose value is now another's."""
        self.nodes.remove(gone)
        for node in self.nodes:
            node.inputs = [by if other is gone else other for other in node.inputs]
        self.outputs = [by if other is gone else other for other in self.outputs]

    def take_over(self, gone: Node, by: Node) -> None:
        """As `replace`, by a node that comes at the place of the one removed, and has its name."""
        place = self.nodes.index(gone)
        self.nodes.remove(by)
        self.nodes.insert(place, by)
        by.name = gone.name
        self.replace(gone, by)

    def prune(self) -> None:
        """Removes what no output needs."""
        needed: set[int] = set()
        waiting = list(self.outputs)
        while waiting:
            node = waiting.pop()
            if id(node) not in needed:
                needed.add(id(node))
                waiting += node.inputs
        self.nodes = [node for node in self.nodes if id(node) in needed]

    def network(self) -> Network:
        """The network that the nodes are."""
        old = self._network
        builder = Builder(old.dtype, old.inputs)
        numbers = {id(node): i for i, node in enumerate(self._inputs)}
        for node in self.nodes:
            builder.name = node.name
            inputs = [numbers[id(other)] for other in node.inputs]
            numbers[id(node)] = builder.emit(node.operation, inputs, node.attributes, node.weights)
        outputs = [numbers[id(node)] for node in self.outputs]
        names, tensors = old.output_names, builder.tensors
        return Network(old.dtype, old.inputs, builder.steps, outputs, names, tensors)
