"""A network that is being written: steps, the shapes of their values, and tensors kept once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sepconv.program.building.tensors import Tensors
from sepconv.program.network import OPERATIONS, Input, Step
from sepconv.program.shapes import Shape, shape_of

__all__ = ["Builder"]


class Builder:
    """Steps in their order, with a method for each kind that several layers are made of.

    A method appends a step and returns the number of its value.

    Args:
        dtype: of the network.
        inputs: of the network.

    Attributes:
        steps: those so far.
        shapes: of all values so far, inputs first.
        tensors: the weights so far.
        name: of the layer that is being written; steps get it.
    """

    def __init__(self, dtype: str, inputs: Sequence[Input]) -> None:
        self.dtype, self.inputs = dtype, inputs
        self.steps: list[Step] = []
        self.shapes: list[Shape] = [tuple(entry.shape) for entry in inputs]
        self._tensors = Tensors()
        self.tensors = self._tensors.arrays
        self.name = ""

    def tensor(self, array: Any, dtype: Any = None) -> int:
        """The number of a tensor, rounded to a dtype, the network's by default.

        Equal ones are kept once.
        """
        dense = np.ascontiguousarray(array, dtype or self.dtype).reshape(np.shape(array))
        return self._tensors.add(dense)

    def emit(
        self,
        operation: str,
        inputs: Sequence[int],
        attributes: Mapping[str, Any] | None = None,
        weights: Mapping[str, Any] | None = None,
    ) -> int:
        """Appends a step of any kind; weights that are None are left out."""
        given = {
            part: self.tensor(array) for part, array in (weights or {}).items() if array is not None
        }
        step = Step(operation, self.name, list(inputs), dict(attributes or {}), given)
        assert {field.name for field in OPERATIONS[operation].fields} == set(step.attributes)
        shapes = {part: self.tensors[i].shape for part, i in given.items()}
        self.shapes.append(shape_of(step, shapes, [self.shapes[i] for i in inputs]))
        self.steps.append(step)
        return len(self.shapes) - 1

    def rank(self, x: int) -> int:
        """The number of axes of a value."""
        return len(self.shapes[x])

    def axis(self, x: int, axis: int) -> int:
        """An axis of a value, counted from 0."""
        return axis % self.rank(x)

    def unary(self, x: int, function: str, a: float = 0.0, b: float = 0.0, c: float = 0.0) -> int:
        """A function of every element."""
        attributes = {"function": function, "a": float(a), "b": float(b), "c": float(c)}
        return self.emit("unary", [x], attributes)

    def relu(self, x: int, slope: float = 0.0, largest: float = math.inf) -> int:
        """The function that is 0 or a slope below 0, x above, and ends at `largest`."""
        return self.unary(x, "relu", slope, largest)

    def linear(self, x: int, scale: float = 1.0, shift: float = 0.0) -> int:
        """``x * scale + shift``, with the same two numbers for all elements."""
        return self.unary(x, "linear", scale, shift)

    def binary(self, function: str, a: int, b: int) -> int:
        """A function of two arrays."""
        return self.emit("binary", [a, b], {"function": function})

    def scale(self, x: int, axis: int, scale: Any = None, shift: Any = None) -> int:
        """``x * scale + shift``, with two numbers for each place along an axis."""
        weights = {"scale": scale, "shift": shift}
        return self.emit("scale", [x], {"axis": self.axis(x, axis)}, weights)

    def reduce(self, x: int, function: str, axes: Sequence[int], keepdims: bool) -> int:
        """The mean, maximum, minimum or sum over axes."""
        counted = sorted({self.axis(x, axis) for axis in axes})
        attributes = {"function": function, "axes": counted, "keepdims": bool(keepdims)}
        return self.emit("reduce", [x], attributes)

    def concatenate(self, xs: Sequence[int], axis: int) -> int:
        """Arrays one after the other."""
        return self.emit("concatenate", xs, {"axis": self.axis(xs[0], axis)})

    def pad(self, x: int, around: Sequence[Sequence[int]], value: float = 0.0) -> int:
        """Elements before and after, for every axis."""
        before, after = ([int(pair[i]) for pair in around] for i in range(2))
        return self.emit("pad", [x], {"before": before, "after": after, "value": float(value)})

    def slice(self, x: int, bounds: Mapping[int, tuple[int, int | None, int]]) -> int:
        """A part of an array: (start, stop, step) for the axes that are cut."""
        cuts = [bounds.get(axis, (0, None, 1)) for axis in range(self.rank(x))]
        starts, stops, steps = (list(column) for column in zip(*cuts, strict=True))
        return self.emit("slice", [x], {"starts": starts, "stops": stops, "steps": steps})

    def transpose(self, x: int, permutation: Sequence[int]) -> int:
        """The axes in another order."""
        return self.emit("transpose", [x], {"permutation": [int(axis) for axis in permutation]})

    def reshape(self, x: int, shape: Sequence[int]) -> int:
        """The elements in another shape; see `OPERATIONS`."""
        return self.emit("reshape", [x], {"shape": [int(size) for size in shape]})

    def softmax(self, x: int, axis: int, logarithm: bool = False) -> int:
        """Softmax along an axis, or its logarithm."""
        attributes = {"axis": self.axis(x, axis), "logarithm": logarithm}
        return self.emit("softmax", [x], attributes)

    def layer_normalization(
        self, x: int, axes: int, epsilon: float, gamma: Any = None, beta: Any = None
    ) -> int:
        """Layer normalization over the last `axes` axes."""
        attributes = {"axes": axes, "epsilon": float(epsilon)}
        return self.emit("layer_normalization", [x], attributes, {"gamma": gamma, "beta": beta})

    def constant(self, value: Any) -> int:
        """An array that is always the same."""
        return self.emit("constant", [], {}, {"value": value})
