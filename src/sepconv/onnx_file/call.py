"""What a function gets that writes one step of a network as ONNX nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from sepconv.geometry import ConvSpec
from sepconv.onnx_file.graph import Graph, permutation
from sepconv.program.network import Network, Step
from sepconv.program.shapes import Shape
from sepconv.quantization.origin import Rounding
from sepconv.quantization.ranges import Scale

__all__ = ["Call", "Written"]


class Written(NamedTuple):
    """The numbers that a step gives: their name, and whether with channels first.

    Attributes:
        name: of them.
        first: whether a value of channels last is there with channels first.
        scale: None; or what they are to be rounded to, of bytes.
        whole: whether they are bytes already.
    """

    name: str
    first: bool = False
    scale: Scale | None = None
    whole: bool = False


class Call(NamedTuple):
    """A step that is to be written.

    Attributes:
        graph: where to.
        network: which has it.
        step: the step.
        value: the number of what it gives.
        sizes: the shapes of all values.
        scales: of all values; None of floats.
        roundings: of the step's results, in the order of its parts.
        wants_first: whether what it gives is best with channels first.
    """

    graph: Graph
    network: Network
    step: Step
    value: int
    sizes: Sequence[Shape]
    scales: Sequence[Scale | None]
    roundings: Sequence[Rounding]
    wants_first: bool

    @property
    def given(self) -> Mapping[str, Any]:
        """The step's attributes."""
        return self.step.attributes

    def shape(self, index: int = 0) -> Shape:
        """The shape of an input."""
        return self.sizes[self.step.inputs[index]]

    def tensor(self, part: str) -> np.ndarray | None:
        """A tensor of the step; None where there is none."""
        number = self.step.weights.get(part)
        return None if number is None else self.network.tensors[number]

    def real(self, index: int = 0, first: bool = False, scale: Scale | None = None) -> str:
        """The numbers of an input; see `Graph.real`."""
        return self.graph.real(self.step.inputs[index], first, scale)

    def image(self, index: int = 0, scale: Scale | None = None) -> str:
        """The numbers of an input of a convolution, with channels first."""
        return self.real(index, not self.spec.channels_first, scale)

    def scale_of(self, index: int, zero_point: int) -> Scale:
        """What the bytes of an input are to the step, which says their zero point itself."""
        own = self.scales[self.step.inputs[index]]
        assert own is not None  # since the step takes bytes
        return own._replace(zero_point=zero_point)

    @property
    def spec(self) -> ConvSpec:
        """The step's."""
        return ConvSpec(*self.given["spec"])

    def written_image(self, name: str, scale: Scale | None = None) -> Written:
        """The result of a convolution, which has channels first."""
        return Written(name, not self.spec.channels_first, scale)

    def goes_first(self) -> bool:
        """Whether a step that takes either order is best written with channels first.

        Its inputs must be of one rank with its value.
        """
        rank = len(self.sizes[self.value])
        alike = rank in (3, 4) and all(len(self.sizes[i]) == rank for i in self.step.inputs)
        there = any(self.graph.is_first(i) for i in self.step.inputs)
        return alike and (there or self.wants_first)

    def axis(self, axis: int, first: bool) -> int:
        """Where an axis of a value is."""
        rank = len(self.sizes[self.value])
        return permutation(rank, True).index(axis) if first else axis

    def reordered(self, numbers: Sequence[Any], first: bool) -> list[Any]:
        """Numbers an axis, in the order of the axes."""
        order = permutation(len(numbers), True) if first else range(len(numbers))
        return [numbers[axis] for axis in order]

    def node(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """As `Graph.node`."""
        return self.graph.node(operation, *inputs, **attributes)

    def constant(self, array: Any, suffix: str = "constant", dtype: Any = np.float32) -> str:
        """As `Graph.constant`."""
        return self.graph.constant(array, suffix, dtype)

    def refuse(self, why: str) -> NoReturn:
        """Says that the step cannot be written.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"The step {self.step.name!r} ({self.step.operation}) cannot be written as ONNX: {why}"
        )
