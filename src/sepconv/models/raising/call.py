"""What a function gets that makes Keras' layers of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import keras
import numpy as np

from sepconv.program.network import Step

__all__ = ["Call"]


class Call(NamedTuple):
    """A step, and what it is applied to.

    Attributes:
        step: the step.
        weights: its tensors, by their parts.
        inputs: Keras' symbolic tensors; arrays where they are constants.
        name: gives layers names of their own.
    """

    step: Step
    weights: Mapping[str, np.ndarray]
    inputs: Sequence[Any]
    name: Callable[[str], str]

    @property
    def x(self) -> Any:
        """The first input."""
        return self.inputs[0]

    @property
    def given(self) -> Mapping[str, Any]:
        """The step's attributes."""
        return self.step.attributes

    def layer(
        self,
        kind: Callable[..., keras.layers.Layer],
        x: Any,
        weights: Sequence[np.ndarray | None] = (),
        **arguments: Any,
    ) -> Any:
        """What a new layer gives, with weights of its own; those that are None it has not."""
        made = kind(name=self.name(self.step.name), dtype="float32", **arguments)
        y = made(x)
        arrays = [array for array in weights if array is not None]
        if arrays:
            made.set_weights(arrays)
        return y

    def refuse(self, why: str) -> NoReturn:
        """Raises since Keras has nothing that computes the step."""
        raise ValueError(
            f"The block {self.step.name!r} has no counterpart among Keras' layers: {why}. "
            f"Received: {self.step.operation}"
        )
