"""Runs networks with int8 steps, for what is measured while one is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sepconv.program import quantized_reference, reference
from sepconv.program.dtypes import as_float64
from sepconv.program.network import QUANTIZED_OPERATIONS, Network

__all__ = ["values"]


def values(
    network: Network, inputs: Sequence[np.ndarray], wanted: Sequence[int]
) -> Mapping[int, np.ndarray]:
    """Values of a network, by their numbers: float32, or uint8 where quantised.

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
        weights = {part: network.tensors[n] for part, n in step.weights.items()}
        given = [there[value] for value in step.inputs]
        if step.operation in QUANTIZED_OPERATIONS or any(x.dtype == np.uint8 for x in given):
            y = quantized_reference.compute(step, weights, given)
        else:
            wide = {part: as_float64(array) for part, array in weights.items()}
            y = reference.compute(step, wide, [x.astype(np.float64) for x in given])
            y = y.astype(np.float32)
        there[len(inputs) + i] = y
        for value in step.inputs:
            if last[value] == i and value not in kept:
                there.pop(value, None)
    return {value: there[value] for value in wanted}
