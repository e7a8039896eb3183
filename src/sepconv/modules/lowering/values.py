"""Values of a PyTorch graph in a network, whose axes lie in another order there.

PyTorch's images have their channels first, and programs compute faster with channels last. So a
value says which of PyTorch's axes each axis in the network is; axes change places only where a step
needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sepconv.program.building.builder import Builder
from sepconv.program.shapes import Shape

__all__ = ["Value", "Writer", "channels_last"]


class Value(NamedTuple):
    """A value.

    Attributes:
        number: in the network.
        axes: for each axis in the network, which one it is in PyTorch.
    """

    number: int
    axes: tuple[int, ...]


def channels_last(rank: int) -> tuple[int, ...]:
    """The order of axes with PyTorch's second one last.

    Example:
        >>> channels_last(4)
        (0, 2, 3, 1)
    """
    return 0, *range(2, rank), 1


class Writer:
    """Writes steps, and brings axes into the order that a step needs.

    Args:
        builder: where to.
    """

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self._arranged: dict[tuple[int, tuple[int, ...]], int] = {}

    def arranged(self, x: Value, axes: Sequence[int]) -> int:
        """The number of a value whose axes are in this order."""
        order = tuple(x.axes.index(axis) for axis in axes)
        if order == tuple(range(len(order))):
            return x.number
        if (x.number, order) not in self._arranged:
            self._arranged[x.number, order] = self.builder.transpose(x.number, order)
        return self._arranged[x.number, order]

    def plain(self, x: Value) -> int:
        """The number of a value whose axes are in PyTorch's order."""
        return self.arranged(x, range(len(x.axes)))

    def image(self, x: Value) -> Value:
        """A value with its channels last."""
        axes = channels_last(len(x.axes))
        return Value(self.arranged(x, axes), axes)

    def shape(self, x: Value) -> Shape:
        """The shape of a value in PyTorch."""
        sizes = self.builder.shapes[x.number]
        return tuple(sizes[x.axes.index(axis)] for axis in range(len(x.axes)))

    def as_plain(self, number: int) -> Value:
        """The value of a number whose axes are in PyTorch's order."""
        return Value(number, tuple(range(self.builder.rank(number))))

    def constant_like(self, x: Value, constant: np.ndarray) -> np.ndarray | None:
        """A constant that is broadcast to a value, its axes as the value's; None if it has more."""
        if constant.ndim == 0:
            return constant
        if constant.ndim > len(x.axes):
            return None
        whole = constant.reshape((1,) * (len(x.axes) - constant.ndim) + constant.shape)
        return whole.transpose(x.axes)
