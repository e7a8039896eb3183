"""Makes a float32 network one of bfloat16: the values between its steps, the weights of products.

What stays float32: inputs and outputs; softmax; the steps after the last product that compute with
vectors alone, where it costs nothing; and all steps of the layers that are named. Sums are in
float32 in any case.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from sepconv.program.dtypes import as_bfloat16
from sepconv.program.network import Network, Step
from sepconv.program.shapes import shapes

__all__ = ["narrowed"]

_PRODUCTS = ("convolution", "dense")

#: Steps whose results lose too much by rounding: small differences of probabilities.
_WIDE = ("softmax",)

#: The most axes of values at the end that stay float32.
_VECTOR = 2


def narrowed(network: Network, wide: Collection[str] = ()) -> Network:
    """The network with bfloat16 between its steps, and with the weights of products rounded to it.

    Args:
        network: of float32 alone.
        wide: the names of steps that stay float32.

    Example:
        >>> from sepconv.program.network import Input
        >>> steps = [Step("dense", "dense", [0], {"activation": "none"}, {"kernel": 0}),
        ...          Step("softmax", "classes", [1], {"axis": 1, "logarithm": False})]
        >>> tensors = [np.ones((4, 3), "float32")]
        >>> network = Network("float32", [Input("x", (None, 4))], steps, [2], ["y"], tensors)
        >>> [step.operation for step in narrowed(network).steps]
        ['cast', 'dense', 'cast', 'softmax']
        >>> narrowed(network).tensors[0].dtype
        dtype('uint16')
    """
    return _Narrowing(network, wide).network()


def _wide_steps(network: Network, wide: Collection[str]) -> list[bool]:
    """Which steps stay float32."""
    first, found = len(network.inputs), [False] * len(network.steps)
    ranks = [len(shape) for shape in shapes(network)]
    before_product = [False] * len(ranks)  # whether a product is computed from a value
    for i in reversed(range(len(network.steps))):
        step = network.steps[i]
        leads = before_product[first + i] or step.operation in _PRODUCTS
        for value in step.inputs:
            before_product[value] |= leads
        small = all(ranks[value] <= _VECTOR for value in (*step.inputs, first + i))
        found[i] = step.name in wide or step.operation in _WIDE or (small and not leads)
    return found


class _Narrowing:
    """Writes the network of bfloat16, a value at a time.

    Args:
        network: as for `narrowed`.
        wide: see there.
    """

    def __init__(self, network: Network, wide: Collection[str]) -> None:
        self._old, self._wide = network, _wide_steps(network, wide)
        self._steps: list[Step] = []
        self._tensors: list[np.ndarray] = []
        self._kept: dict[tuple[int, str], int] = {}  # numbers of tensors, by old ones and dtypes
        # Numbers of values, by old ones and dtypes.
        self._values = {(i, "float32"): i for i in range(len(network.inputs))}
        self._constants: dict[int, Step] = {}

    def network(self) -> Network:
        """The whole network."""
        first = len(self._old.inputs)
        for i, step in enumerate(self._old.steps):
            if step.operation == "constant":  # of the dtype of each step that takes it
                self._constants[first + i] = step
                continue
            dtype = "float32" if self._wide[i] else "bfloat16"
            inputs = [self._value(value, dtype, step.name) for value in step.inputs]
            weights = {
                part: self._tensor(tensor, dtype if step.operation in _PRODUCTS else "float32")
                for part, tensor in step.weights.items()
            }
            new = step._replace(inputs=inputs, weights=weights)
            self._values[first + i, dtype] = self._emit(new)
        outputs = [
            self._value(value, "float32", name)
            for value, name in zip(self._old.outputs, self._old.output_names, strict=True)
        ]
        return self._old._replace(steps=self._steps, outputs=outputs, tensors=self._tensors)

    def _emit(self, step: Step) -> int:
        self._steps.append(step)
        return len(self._old.inputs) + len(self._steps) - 1

    def _value(self, value: int, dtype: str, name: str) -> int:
        """The number of a value in a dtype, for a step of a name."""
        if (value, dtype) not in self._values:
            if value in self._constants:
                step = self._constants[value]
                weights = {"value": self._tensor(step.weights["value"], dtype)}
                self._values[value, dtype] = self._emit(step._replace(weights=weights))
            else:
                other = "float32" if dtype == "bfloat16" else "bfloat16"
                given = self._values[value, other]
                cast = Step("cast", name, [given], {"dtype": dtype}, {})
                self._values[value, dtype] = self._emit(cast)
        return self._values[value, dtype]

    def _tensor(self, tensor: int, dtype: str) -> int:
        if (tensor, dtype) not in self._kept:
            array = self._old.tensors[tensor]
            self._kept[tensor, dtype] = len(self._tensors)
            self._tensors.append(as_bfloat16(array) if dtype == "bfloat16" else array)
        return self._kept[tensor, dtype]
