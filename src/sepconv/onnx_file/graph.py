"""An ONNX graph that is being written: nodes, constants, and where the values of a network are.

ONNX has channels first. A value of channels last is kept in that order as long as steps take it so;
it is transposed where one asks for the other order, at the ends of a network and seldom between.
A value of int8 is bytes; a step asks for the numbers that they stand for, and gives numbers that
are to be rounded. So every step is between a DequantizeLinear and a QuantizeLinear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sepconv.quantization.ranges import Scale

__all__ = ["Graph", "permutation"]


class _Place(NamedTuple):
    """A value in one order of its axes: as floats, or as bytes that stand for a scale's numbers."""

    value: int
    first: bool
    scale: Scale | None


def permutation(rank: int, first: bool) -> list[int]:
    """The axes of an image in the other order: with channels first, or last again.

    Example:
        >>> permutation(4, True), permutation(4, False)
        ([0, 3, 1, 2], [0, 2, 3, 1])
    """
    return [0, rank - 1, *range(1, rank - 1)] if first else [0, *range(2, rank), 1]


class Graph:
    """A graph; steps are written to it in their order.

    Args:
        inputs: the names of its inputs.
        outputs: those of its outputs.
        ranks: the number of axes of every value of the network.
    """

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str], ranks: Sequence[int]) -> None:
        #: ONNX's nodes and initializers.
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        #: What new names begin with.
        self.prefix = "network"
        self._ranks = ranks
        self._names = {*inputs, *outputs}
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._floats = {(i, False): name for i, name in enumerate(inputs)}
        self._bytes: dict[tuple[int, bool], str] = {}
        self._scales: dict[int, Scale] = {}
        self._read: dict[_Place, str] = {}

    # ---- nodes

    def _name(self, suffix: str) -> str:
        base = f"{self.prefix}/{suffix}"
        name, count = base, 1
        while name in self._names:
            count += 1
            name = f"{base}_{count}"
        self._names.add(name)
        return name

    def constant(
        self, array: Any, suffix: str, dtype: Any = np.float32, *, shared: bool = True
    ) -> str:
        """The name of a constant; equal ones are kept once, unless it is not to be shared."""
        from onnx import numpy_helper

        whole = np.asarray(array, dtype)
        dense = np.ascontiguousarray(whole).reshape(whole.shape)
        key = dense.dtype.str, dense.shape, dense.tobytes()
        if shared and key in self._known:
            return self._known[key]
        name = self._name(suffix)
        self.constants.append(numpy_helper.from_array(dense, name))
        return self._known.setdefault(key, name) if shared else name

    def node(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node of one output, whose name this gives."""
        from onnx import helper

        output = self._name(operation)
        given: Mapping[str, Any] = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(helper.make_node(operation, inputs, [output], name=output, **given))
        return output

    def name_output(self, value: int, name: str) -> None:
        """Makes a value, in its own order, an output of this name."""
        from onnx import helper

        self.nodes.append(helper.make_node("Identity", [self.real(value)], [name], name=name))

    # ---- values

    def is_first(self, value: int) -> bool:
        """Whether a value is there with channels first, and only so."""
        both = {**self._floats, **self._bytes}
        return (value, True) in both and (value, False) not in both

    def scale(self, value: int) -> Scale:
        """The scale of a value of bytes."""
        return self._scales[value]

    def quantized(self, value: int) -> bool:
        """Whether a value is of bytes."""
        return value in self._scales

    def real(self, value: int, first: bool = False, scale: Scale | None = None) -> str:
        """A value's numbers.

        Args:
            value: its number.
            first: whether with channels first, of a value of channels last.
            scale: what its bytes stand for, if not what they do where it is made.
        """
        if value not in self._scales:
            if (value, first) not in self._floats:
                given = self._floats[value, not first]
                self._floats[value, first] = self._turned(value, given, first)
            return self._floats[value, first]
        place = _Place(value, first, scale or self._scales[value])
        if place not in self._read:
            assert place.scale is not None
            self._read[place] = self.dequantized(self.whole(value, first), place.scale)
        return self._read[place]

    def whole(self, value: int, first: bool) -> str:
        """The bytes of a value of bytes, with channels first or in its own order."""
        if (value, first) not in self._bytes:
            turned = self._turned(value, self.real(value, not first), first)
            self._bytes[value, first] = self.rounded(turned, self._scales[value])
        return self._bytes[value, first]

    def _turned(self, value: int, name: str, first: bool) -> str:
        return self.node("Transpose", name, perm=permutation(self._ranks[value], first))

    def give(self, value: int, name: str, first: bool = False) -> None:
        """Says where the numbers of a value of floats are."""
        self._floats[value, first] = name

    def give_bytes(self, value: int, name: str, scale: Scale, first: bool = False) -> None:
        """Says where the bytes of a value are, and what they stand for."""
        self._bytes[value, first] = name
        self._scales[value] = scale

    # ---- bytes and numbers

    def _quantization(self, scale: Scale) -> list[str]:
        return [
            self.constant(scale.scale, "scale"),
            self.constant(scale.zero_point, "zero_point", np.uint8),
        ]

    def rounded(self, name: str, scale: Scale) -> str:
        """Numbers as bytes."""
        return self.node("QuantizeLinear", name, *self._quantization(scale))

    def dequantized(self, name: str, scale: Scale) -> str:
        """Bytes as numbers."""
        return self.node("DequantizeLinear", name, *self._quantization(scale))

    def weights(self, array: np.ndarray, scales: np.ndarray, axis: int, suffix: str) -> str:
        """Weights of int8 or int32 with a scale a channel, as numbers.

        Their constants are of this node alone: ONNX Runtime makes unsigned ones of them where it is
        to be precise, and fails on what has been made already.
        """
        operands = (
            (array, suffix, array.dtype),
            (scales, f"{suffix}_scale", np.float32),
            (np.zeros(len(scales)), f"{suffix}_zero_point", array.dtype),
        )
        names = [self.constant(*operand, shared=False) for operand in operands]
        return self.node("DequantizeLinear", *names, axis=axis)
