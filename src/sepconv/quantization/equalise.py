"""Cross-layer equalisation: channels between two layers brought to ranges that are alike.

A value between two layers has one scale, so a channel with small numbers is rounded coarsely beside
one with large ones. Where nothing lies between the layers but a relu, a channel can be divided by a
factor in the first layer and multiplied by it in the second: the network stays the same function.
(Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sepconv.program.network import Step
from sepconv.quantization.atoms import Atoms, consumers
from sepconv.quantization.observe import Seen

__all__ = ["equalise"]

#: Activations that scale with their argument.
_SCALING = ("none", "relu")

#: Factors are between the reciprocal of it and itself: dead channels are not blown up.
_LARGEST = 2.0**8


def equalise(atoms: Atoms, seen: Sequence[Seen]) -> Atoms | None:
    """The same function with other weights.

    Args:
        atoms: of a float network.
        seen: of each of their values.

    Returns:
        New atoms; None where no two layers can be equalised.
    """
    network = atoms.network
    tensors = list(network.tensors)
    steps = list(network.steps)
    found = consumers(network)
    first = len(network.inputs)
    changed = False
    for i, step in enumerate(network.steps):
        value = first + i
        followers = found[value]
        if len(followers) != 1 or followers[0] < 0 or not _gives(step):
            continue
        follower = network.steps[followers[0]]
        channels = seen[value].channels
        if not _takes(follower, value) or channels is None:
            continue
        kernel = tensors[steps[followers[0]].weights[_part(follower)]]
        factors = _factors(channels.greatest, kernel, _part(follower) == "depthwise_kernel")
        if factors is None:
            continue
        steps[i] = _divided(steps[i], tensors, factors)
        steps[followers[0]] = _multiplied(steps[followers[0]], tensors, factors)
        changed = True
    return Atoms(network._replace(steps=steps, tensors=tensors), atoms.blocks) if changed else None


def _gives(step: Step) -> bool:
    """Whether a step's channels can be scaled by its weights."""
    layer = step.operation in ("convolution", "dense") and len(step.inputs) == 1
    return layer and step.attributes["activation"] in _SCALING


def _takes(step: Step, value: int) -> bool:
    """Whether a step multiplies the channels of a value by weights."""
    return step.operation in ("convolution", "dense") and step.inputs[0] == value


def _part(step: Step) -> str:
    if step.operation == "dense":
        return "kernel"
    return "depthwise_kernel" if "depthwise_kernel" in step.weights else "pointwise_kernel"


def _factors(greatest: np.ndarray, kernel: np.ndarray, depthwise: bool) -> np.ndarray | None:
    """What each channel is divided by in the first layer, and multiplied by in the second."""
    if not greatest.any():
        return None
    if depthwise:
        # A channel's weights have a scale of their own, so its numbers may be as large as any.
        wanted = greatest / greatest.max()
    else:
        # Rounding a channel costs by its weights, rounding its weights by its numbers: both count.
        weights = np.abs(kernel.reshape(-1, *kernel.shape[-2:])).max((0, 2))
        if not weights.any():
            return None
        product = np.sqrt(greatest * weights / (greatest.max() * weights.max()))
        wanted = np.divide(
            greatest / greatest.max(), product, out=np.ones_like(product), where=product > 0
        )
    return np.clip(np.where(wanted > 0, wanted, 1.0), 1 / _LARGEST, _LARGEST)


def _divided(step: Step, tensors: list[np.ndarray], factors: np.ndarray) -> Step:
    part = _part(step)
    kernel = tensors[step.weights[part]]
    shape = kernel.shape[-2:] if part == "depthwise_kernel" else (1, kernel.shape[-1])
    changed = {part: kernel / factors.reshape(shape)}
    if "bias" in step.weights:
        changed["bias"] = tensors[step.weights["bias"]] / factors
    return _with(step, tensors, changed)


def _multiplied(step: Step, tensors: list[np.ndarray], factors: np.ndarray) -> Step:
    part = _part(step)
    return _with(step, tensors, {part: tensors[step.weights[part]] * factors[:, None]})


def _with(step: Step, tensors: list[np.ndarray], changed: dict[str, np.ndarray]) -> Step:
    """A step with other tensors, which are added to the list."""
    weights = dict(step.weights)
    for part, array in changed.items():
        weights[part] = len(tensors)
        tensors.append(np.asarray(array, np.float32))
    return step._replace(weights=weights)
