"""Chooses the scale of every value of the atoms, and the values whose channels are observed."""

from __future__ import annotations

from collections.abc import Container, Sequence

from sepconv.program.network import Network
from sepconv.program.shapes import shapes
from sepconv.quantization.atoms import Atoms, channel_axis, consumers
from sepconv.quantization.forms import clamp_of, function_of, kind_of
from sepconv.quantization.observe import Seen
from sepconv.quantization.ranges import Scale, best

__all__ = ["channel_axes", "logits", "scales_of", "shared"]


def channel_axes(network: Network) -> dict[int, int]:
    """Of the values that layers with weights take or give, and of sums, the channels' axis."""
    found, first = shapes(network), len(network.inputs)
    axes: dict[int, int] = {}
    for i, step in enumerate(network.steps):
        if kind_of(step) == "weights":
            axis = channel_axis(step, len(found[step.inputs[0]]))
            axes |= {step.inputs[0]: axis, first + i: axis}
        elif step.operation == "binary" and step.attributes["function"] == "add":
            axes[first + i] = axes.get(step.inputs[0], len(found[first + i]) - 1)
    return axes


def scales_of(atoms: Atoms, seen: Sequence[Seen]) -> list[Scale]:
    """The scale and zero point of every value.

    A number that goes into a function alone is rounded for the function's result. What is left of
    the outputs is not clamped: the largest number of a classifier is the one that counts.
    """
    network = atoms.network
    first, found, last = len(network.inputs), consumers(network), _ends(network)
    scales = []
    for value, numbers in enumerate(seen):
        function = None
        followers = found[value]
        if len(followers) == 1 and followers[0] >= 0 and value >= first:
            follower = network.steps[followers[0]]
            layer = kind_of(network.steps[value - first]) == "weights"
            if layer and follower.operation == "unary" and clamp_of(follower) is None:
                function = function_of(follower)
        usable = numbers.finite and numbers.histogram.least <= numbers.histogram.greatest
        scales.append(
            best(numbers.histogram, function, extremes=value in last) if usable else Scale(1.0, 0)
        )
    return scales


def shared(atoms: Atoms, scales: Sequence[Scale], floats: Container[int]) -> list[Scale]:
    """The scales of values, with what is only concatenated given the scale of the whole.

    Args:
        atoms: of a float network.
        scales: of each of their values.
        floats: blocks that stay float.
    """
    network, result = atoms.network, list(scales)
    first, users = len(network.inputs), consumers(network)
    for i in reversed(range(len(network.steps))):
        step = network.steps[i]
        if step.operation != "concatenate" or atoms.blocks[i] in floats:
            continue
        for each in step.inputs:
            j = each - first
            computed = (
                j >= 0 and atoms.blocks[j] not in floats and kind_of(network.steps[j]) != "move"
            )
            if computed and len(set(users[each])) == 1:
                result[each] = result[first + i]
    return result


def logits(network: Network) -> list[int]:
    """The outputs of a network; of those that are a softmax, what this takes.

    Example:
        >>> from sepconv.program.network import Input, Step
        >>> step = Step("softmax", "s", [0], {"axis": 1, "logarithm": False})
        >>> logits(Network("float32", [Input("x", (None, 2))], [step], [1], ["y"], []))
        [0]
    """
    found = []
    for value in network.outputs:
        i = value - len(network.inputs)
        soft = i >= 0 and network.steps[i].operation == "softmax"
        found.append(network.steps[i].inputs[0] if soft else value)
    return found


def _ends(network: Network) -> set[int]:
    """The outputs, and what becomes one by a softmax or by being moved."""
    first, found = len(network.inputs), set(network.outputs)
    for i in reversed(range(len(network.steps))):
        step = network.steps[i]
        passes = step.operation == "softmax" or kind_of(step) == "move"
        if passes and first + i in found:
            found |= set(step.inputs)
    return found
