"""One call of a layer or operation that is to be lowered: its arguments, and where to write."""

from __future__ import annotations

import inspect
from typing import Any, NoReturn

import keras
import numpy as np

from sepconv.models.folding import Convolution
from sepconv.models.graph import Step, Value
from sepconv.program.building.builder import Builder
from sepconv.program.building.refusal import NotLowered
from sepconv.program.shapes import Shape

__all__ = ["Call", "array_of", "refusal"]


def array_of(weight: Any) -> np.ndarray:
    """A weight or tensor as a NumPy array."""
    return np.asarray(keras.ops.convert_to_numpy(weight))


def refusal(step: Step, why: str) -> NotLowered:
    """The error that names a step's layer, also where others were merged into it."""
    operation = step.operation
    layer = operation.layer if isinstance(operation, Convolution) else operation
    return NotLowered(step.label, type(layer).__name__, why)


class Call:
    """What a function of the table gets.

    Attributes:
        builder: where it writes.
        layer: the layer or operation.
        step: the call in the model's graph.
        numbers: of the values in the network, by those of the graph.
    """

    def __init__(self, builder: Builder, step: Step, numbers: dict[Value, int]) -> None:
        self.builder, self.step, self.numbers = builder, step, numbers
        self.layer: Any = step.operation

    def refuse(self, why: str) -> NoReturn:
        """Raises the error that names the layer."""
        raise refusal(self.step, why)

    @property
    def x(self) -> int:
        """The number of the only input."""
        if not self.step.takes_one():
            self.refuse("it is called with more than one tensor, or with arguments that matter")
        return self.numbers[self.step.inputs[0]]

    @property
    def xs(self) -> list[int]:
        """The numbers of all inputs, of a layer that takes a list of them."""
        args, kwargs = self.step.arguments
        plain = all(v in (None, False) for v in kwargs.values() if not isinstance(v, Value))
        listed = len(args) == 1 and isinstance(args[0], (list, tuple))
        if not (plain and listed and list(args[0]) == self.step.inputs):
            self.refuse("it is called with something else than a list of tensors")
        return [self.numbers[value] for value in self.step.inputs]

    @property
    def shape(self) -> Shape:
        """The shape of the first input."""
        return self.builder.shapes[self.numbers[self.step.inputs[0]]]

    @property
    def rank(self) -> int:
        """The number of axes of the first input."""
        return len(self.shape)

    def argument(self, name: str) -> Any:
        """An argument of an operation's call by its name: a `Value`, or what was given."""
        args, kwargs = self.step.arguments
        bound = inspect.signature(type(self.layer).call).bind(self.layer, *args, **kwargs)
        bound.apply_defaults()
        return bound.arguments[name]

    def tensor_argument(self, name: str) -> int | np.ndarray:
        """An argument of an operation that is an array: its number, or a constant one."""
        given = self.argument(name)
        if isinstance(given, Value):
            return self.numbers[given]
        return array_of(given)
