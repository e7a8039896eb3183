"""Cross-layer equalisation: channels between layers brought to ranges that are alike.

A value between layers has one scale, so a channel with small numbers is rounded coarsely beside one
with large ones. Where nothing lies between the layers but a relu, a channel can be divided by a
factor in the layer before and multiplied by it in those after: the network stays the same function.
(Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019.)

Values that are added up have the same factors: they are one group. A relu6 stays where it is, so
that a channel that is scaled up is clamped earlier, but above all that was seen of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sepconv.program.network import Network, Step
from sepconv.program.shapes import shapes
from sepconv.quantization.atoms import Atoms, consumers
from sepconv.quantization.observe import Seen

__all__ = ["equalise"]

#: Activations that scale with their argument; relu6 does below 6.
_SCALING = ("none", "relu", "relu6")

#: Factors are between the reciprocal of it and itself: dead channels are not blown up.
_LARGEST = 2.0**8

#: How far a clamp stays above the greatest number that was seen of a channel.
_HEADROOM = 2.0

#: What a channel counts as having reached at least, as a part of the largest one's: other data
#: wakes channels that the examples leave asleep, and a clamp just above these would cut it off.
_ASLEEP = 0.1


def equalise(atoms: Atoms, seen: Sequence[Seen]) -> Atoms | None:
    """Nearly the same function with other weights.

    Args:
        atoms: of a float network.
        seen: of each of their values, with the channels of those that layers give and take.

    Returns:
        New atoms; None where no layers can be equalised.
    """
    network = atoms.network
    layers = _Layers(network)
    changed = False
    for group in _groups(network):
        factors = _factors(layers, group, seen)
        if factors is not None:
            layers.scale(group, factors)
            changed = True
    return atoms._replace(network=layers.network()) if changed else None


class _Group:
    """Values that have the same factors.

    Attributes:
        values: their numbers.
        before: the layers with weights that give them.
        after: the layers with weights that take them.
        clamped: whether one of them is what a relu6 gives.
    """

    def __init__(self, network: Network, values: Iterable[int]) -> None:
        self.values = sorted(values)
        self.before: list[int] = []
        self.after: list[int] = []
        self.clamped = False
        self._network, self._inside = network, set(self.values)

    def fits(self, found: Sequence[Sequence[int]]) -> bool:
        """Whether factors may be given to it; `found` are the consumers of values."""
        first, steps = len(self._network.inputs), self._network.steps
        for value in self.values:
            i = value - first
            if i < 0 or not self._gives(i):
                return False
            for j in found[value]:
                # A sum's inputs and value are in the group anyway.
                if j < 0 or not (_has_weights(steps[j]) or first + j in self._inside):
                    return False
                if _has_weights(steps[j]) and steps[j].inputs[0] == value:
                    self.after.append(j)
        return bool(self.before and self.after)

    def _gives(self, i: int) -> bool:
        step = self._network.steps[i]
        if _has_weights(step):
            self.before.append(i)
            self.clamped = self.clamped or step.attributes["activation"] == "relu6"
            return step.attributes["activation"] in _SCALING
        return _passes(step)


def _groups(network: Network) -> list[_Group]:
    """The groups of a network that factors may be given to."""
    first, found = len(network.inputs), shapes(network)
    parents = list(range(len(found)))

    def root(value: int) -> int:
        while parents[value] != value:
            value = parents[value]
        return value

    for i, step in enumerate(network.steps):
        same = step.inputs[1:] if step.operation == "convolution" else ()
        if _passes(step):
            same = [value for value in step.inputs if found[value][-1] == found[first + i][-1]]
        for value in same:
            parents[root(value)] = root(first + i)
    members: dict[int, list[int]] = {}
    for value in range(len(found)):
        members.setdefault(root(value), []).append(value)
    users = consumers(network)
    groups = [_Group(network, values) for values in members.values()]
    return [group for group in groups if group.fits(users)]


def _has_weights(step: Step) -> bool:
    return step.operation in ("convolution", "dense")


def _passes(step: Step) -> bool:
    """Whether a step gives channels as it takes them: a sum, or a mean over pixels."""
    if step.operation == "reduce":
        # Channels are last: those of images that have them first are left.
        return step.attributes["function"] == "mean" and list(step.attributes["axes"]) == [1, 2]
    return step.operation == "binary" and step.attributes["function"] == "add"


def _part(step: Step) -> str:
    if step.operation == "dense":
        return "kernel"
    return "depthwise_kernel" if "depthwise_kernel" in step.weights else "pointwise_kernel"


class _Layers:
    """Steps and tensors that are being changed."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.steps = list(network.steps)
        self.tensors = list(network.tensors)

    def network(self) -> Network:
        """The result."""
        return self._network._replace(steps=self.steps, tensors=self.tensors)

    def kernel(self, i: int) -> tuple[np.ndarray, bool]:
        """A layer's kernel, and whether it is a depthwise one."""
        part = _part(self.steps[i])
        return self.tensors[self.steps[i].weights[part]], part == "depthwise_kernel"

    def scale(self, group: _Group, factors: np.ndarray) -> None:
        """Divides the group's channels by factors."""
        for i in group.before:
            step = self.steps[i]
            kernel, depthwise = self.kernel(i)
            shape = kernel.shape[-2:] if depthwise else (1, kernel.shape[-1])
            changed = {_part(step): kernel / factors.reshape(shape)}
            if "bias" in step.weights:
                changed["bias"] = self.tensors[step.weights["bias"]] / factors
            self._change(i, changed)
        for i in group.after:
            kernel, _ = self.kernel(i)
            self._change(i, {_part(self.steps[i]): kernel * factors[:, None]})

    def _change(self, i: int, changed: dict[str, np.ndarray]) -> None:
        weights = dict(self.steps[i].weights)
        for part, array in changed.items():
            weights[part] = len(self.tensors)
            self.tensors.append(np.asarray(array, np.float32))
        self.steps[i] = self.steps[i]._replace(weights=weights)


def _factors(layers: _Layers, group: _Group, seen: Sequence[Seen]) -> np.ndarray | None:
    """What each channel of a group is divided by; None where that is left."""
    channels = [seen[value].channels for value in group.values]
    known = [each for each in channels if each is not None]
    if len(known) < len(channels) or len({len(each.greatest) for each in known}) > 1:
        return None
    greatest = np.max([each.greatest for each in known], axis=0)
    if not np.isfinite(greatest).all() or not greatest.any():
        return None
    size = greatest / greatest.max()
    weights = np.zeros_like(size)
    for i in group.after:
        kernel, depthwise = layers.kernel(i)
        if not depthwise:
            weights = np.maximum(weights, np.abs(kernel).max(axis=(*range(kernel.ndim - 2), -1)))
    wanted = size
    if weights.any():
        # Rounding a channel costs by its weights, rounding its weights by its numbers: both count.
        product = np.sqrt(size * weights / weights.max())
        wanted = np.divide(size, product, out=np.ones_like(size), where=product > 0)
    factors = np.where(wanted > 0, wanted, 1.0)
    if group.clamped:
        reached = np.maximum(greatest, _ASLEEP * greatest.max())
        factors = np.minimum(np.maximum(factors, reached * _HEADROOM / 6), 1.0)
    return np.clip(factors, 1 / _LARGEST, _LARGEST)
