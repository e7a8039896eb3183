"""The values of an int8 network that is being written: as bytes, as floats or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sepconv.program.building.tensors import Tensors
from sepconv.program.network import Network, Step
from sepconv.quantization.origin import Rounding
from sepconv.quantization.ranges import Scale

__all__ = ["Values"]


class Values:
    """Steps that are written one after the other, and where the values of a float network are.

    A step asks for its inputs as bytes or as floats, and a `quantize` or `dequantize` is put in
    where they are not there so yet.

    Args:
        network: the float network.
        scales: of each of its values, if it is quantised.
    """

    def __init__(self, network: Network, scales: Sequence[Scale]) -> None:
        self._float, self._scales = network, list(scales)
        self._first = len(network.inputs)
        self._steps: list[Step] = []
        self._tensors = Tensors()
        #: Of every step that was written.
        self.origin: list[Sequence[Rounding]] = []
        self._bytes: dict[int, int] = {}
        self._floats: dict[int, int] = {i: i for i in range(self._first)}

    def network(self) -> Network:
        """The result."""
        return self._float._replace(
            steps=self._steps,
            outputs=[self._floats[value] for value in self._float.outputs],
            tensors=self._tensors.arrays,
        )

    def where(self) -> dict[int, tuple[int, Scale | None]]:
        """As of `sepconv.quantization.rewrite.Rewritten`."""
        found: dict[int, tuple[int, Scale | None]] = {
            value: (number, None) for value, number in self._floats.items()
        }
        return found | {
            value: (number, self._scales[value]) for value, number in self._bytes.items()
        }

    def _emit(
        self,
        operation: str,
        name: str,
        inputs: Sequence[int],
        attributes: Mapping[str, Any] | None = None,
        weights: Mapping[str, np.ndarray] | None = None,
        roundings: Sequence[Rounding] = (),
    ) -> int:
        self.origin.append(roundings)
        parts = {part: self._tensors.add(array) for part, array in (weights or {}).items()}
        self._steps.append(Step(operation, name, list(inputs), dict(attributes or {}), parts))
        return self._first + len(self._steps) - 1

    def _name(self, value: int) -> str:
        i = value - self._first
        return self._float.inputs[value].name if i < 0 else self._float.steps[i].name

    def _as_bytes(self, value: int) -> int:
        if value not in self._bytes:
            scale = self._scales[value]
            given = {
                "multiplier": float(1 / np.float32(scale.scale)),
                "zero_point": scale.zero_point,
            }
            self._bytes[value] = self._emit(
                "quantize",
                self._name(value),
                [self._floats[value]],
                given,
                roundings=[Rounding(scale, scale)],
            )
        return self._bytes[value]

    def _as_float(self, value: int) -> int:
        if value not in self._floats:
            given = self._scales[value]._asdict()
            self._floats[value] = self._emit(
                "dequantize", self._name(value), [self._bytes[value]], given
            )
        return self._floats[value]

    def _write_float(self, i: int, step: Step) -> None:
        inputs = [self._as_float(value) for value in step.inputs]
        weights = {part: self._float.tensors[n] for part, n in step.weights.items()}
        self._floats[self._first + i] = self._emit(
            step.operation, step.name, inputs, step.attributes, weights
        )
