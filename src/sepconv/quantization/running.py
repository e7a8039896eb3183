"""Runs networks with int8 steps, for what is measured while one is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sepconv.program import reference
from sepconv.program.network import Network

__all__ = ["values"]


def values(
    network: Network, inputs: Sequence[np.ndarray], wanted: Sequence[int]
) -> Mapping[int, np.ndarray]:
    """Values of a network, by their numbers.

    Args:
        network: of float32, with int8 steps.
        inputs: an array for each of its inputs.
        wanted: the numbers of the values.
    """
    last: dict[int, int] = {}
    for i, step in enumerate(network.steps):
        last.update(dict.fromkeys(step.inputs, i))
    kept = set(wanted)
    there = {i: np.asarray(x, np.float32) for i, x in enumerate(inputs)}
    for i, step in enumerate(network.steps):
        parts = {part: network.tensors[n] for part, n in step.weights.items()}
        y = reference.value_of(step, parts, [there[value] for value in step.inputs])
        there[len(inputs) + i] = y if y.dtype == np.uint8 else y.astype(np.float32)
        for value in step.inputs:
            if last[value] == i and value not in kept:
                there.pop(value, None)
    return {value: there[value] for value in wanted}
