"""Ranges of values by what they do to the outputs, where the least squared error was the start.

Of a value's rounding, what counts is what is left of it in the network's outputs. A pixel among
many hardly does, nor does a channel that the next layer makes little of; a single large number may
decide. So every value is rounded by itself, in a few ranges, and the rest of the float network says
what becomes of it.

Rounding errs alike on all examples, clamping on the few with large numbers, and on others that are
not among the examples. A range is therefore judged by the mean error over examples and its
deviation between them, and of ranges that are nearly as good the widest is taken. The fewer steps
there are after a value, the more examples it is judged by: these are sooner computed, and it is
large numbers late in a network that few examples have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sepconv.program.network import Input, Network
from sepconv.program.program import Program
from sepconv.program.shapes import shapes
from sepconv.quantization.atoms import Atoms
from sepconv.quantization.observe import Runner, Seen, batches_of
from sepconv.quantization.ranges import Scale, of_range

__all__ = ["refined", "rest_of"]

#: Ranges that are tried, as parts of the extremes that were seen.
_PARTS = np.array([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15])

#: How many examples the first value is judged by.
_FEWEST = 16

#: How many deviations between examples are added to the mean error.
_DEVIATIONS = 1.0

#: How much more error a wider range may have: of its own, and of a value's mean share of all.
_OWN, _SHARE = 0.25, 0.2


def refined(
    atoms: Atoms,
    seen: Sequence[Seen],
    scales: Sequence[Scale],
    examples: Sequence[np.ndarray],
    ends: Sequence[int],
    fixed: Iterable[int] = (),
) -> list[Scale]:
    """The scales of all values; those of the values that nothing is found for stay as they are.

    Args:
        atoms: of a float network.
        seen: of each of their values.
        scales: of each of their values.
        examples: the network's inputs, of the calibration data; any first ones are like all.
        ends: the values whose errors count, such as the outputs.
        fixed: values whose scales stay.
    """
    network = atoms.network
    left = set(fixed) | {value for value, numbers in enumerate(seen) if numbers.histogram.whole}
    tried: dict[int, list[Scale]] = {}
    for value, numbers in enumerate(seen):
        histogram = numbers.histogram
        usable = numbers.finite and histogram.least < histogram.greatest
        if usable and value not in left and rest_of(network, value, ends) is not None:
            tried[value] = [
                of_range(histogram.least * part, histogram.greatest * part) for part in _PARTS
            ]
    errors = _errors(network, tried, examples, ends)
    least = {value: found.min() for value, found in errors.items()}
    share = _SHARE * sum(least.values()) / max(len(least), 1)
    result = list(scales)
    for value, found in errors.items():
        good = np.flatnonzero(found <= least[value] * (1 + _OWN) + share)
        if len(good):  # none where outputs are not finite
            result[value] = tried[value][int(good.max())]
    return result


def _errors(
    network: Network,
    tried: dict[int, list[Scale]],
    examples: Sequence[np.ndarray],
    ends: Sequence[int],
) -> dict[int, np.ndarray]:
    """Of every value that is rounded by itself, the error of the outputs in each of its scales."""
    run = Runner(network)
    programs: dict[int, tuple[Program, list[int], list[int]]] = {}
    enough: dict[int, float] = {}  # examples
    for value in tried:
        rest = rest_of(network, value, ends)
        assert rest is not None
        programs[value] = Program(rest[0], keep=False), rest[1], rest[2]
        enough[value] = _FEWEST * len(network.steps) / len(rest[0].steps)
    found: dict[int, list[np.ndarray]] = {value: [] for value in tried}
    done = 0
    for batch in batches_of(network, examples):
        unjudged = [value for value in tried if done < enough[value]]
        if not unjudged:
            break
        values = dict(run(batch))
        for value in unjudged:
            scales = tried[value]
            program, needed, reached = programs[value]
            others = [values[each] for each in needed[1:]]
            rows = []
            for scale in scales:
                outputs = program(scale.rounded(values[value]), *others)
                outputs = outputs if isinstance(outputs, tuple) else (outputs,)
                wanted = [values[end] for end in reached]
                rows.append(_relative(outputs, wanted, len(batch[0])))
            found[value].append(np.stack(rows))
        done += len(batch[0])
    result = {}
    for value, parts in found.items():
        errors = np.concatenate(parts, 1)
        result[value] = errors.mean(1) + _DEVIATIONS * errors.std(1)
    return result


def _relative(
    found: Sequence[np.ndarray], expected: Sequence[np.ndarray], examples: int
) -> np.ndarray:
    """Of each example, squared errors over all examples' mean squares, added up over outputs.

    An output may have several rows an example; one that cannot be shared out counts for all alike.
    """
    total = np.zeros(examples)
    for y, wanted in zip(found, expected, strict=True):
        rows = 1 if wanted.size % examples else examples
        wide = wanted.astype(np.float64).reshape(rows, -1)
        signal = (wide * wide).mean()
        if signal:
            total += ((y.reshape(wide.shape) - wide) ** 2).mean(1) / signal
    return total


def rest_of(
    network: Network, value: int, ends: Sequence[int]
) -> tuple[Network, list[int], list[int]] | None:
    """The steps of a network that a value matters to, as a network.

    Args:
        network: of float.
        value: the number of one of its values.
        ends: the values that are wanted.

    Returns:
        The network; the values of the whole one that are its inputs, `value` first; and those of
        `ends` that it gives. None where the value matters to none of these.

    Example:
        >>> from sepconv.program.network import Step
        >>> square = {"function": "square", "a": 0.0, "b": 0.0, "c": 0.0}
        >>> steps = [Step("unary", f"square_{i}", [i], square) for i in range(3)]
        >>> network = Network("float32", [Input("x", (None,))], steps, [3], ["y"], [])
        >>> rest, inputs, outputs = rest_of(network, 1, [3])
        >>> [step.name for step in rest.steps], inputs, outputs
        (['square_1', 'square_2'], [1], [3])
    """
    first = len(network.inputs)
    wanted: set[int] = set(ends)
    for i in reversed(range(len(network.steps))):
        if first + i in wanted:
            wanted |= set(network.steps[i].inputs)
    reached = {value}
    members = []
    for i, step in enumerate(network.steps):
        if first + i in wanted and first + i > value and reached & set(step.inputs):
            reached.add(first + i)
            members.append(i)
    given = [end for end in ends if end in reached and end != value]
    if not given:
        return None
    others = {each for i in members for each in network.steps[i].inputs} - reached
    needed = [value, *sorted(others)]
    sizes = shapes(network)
    numbers = {each: k for k, each in enumerate(needed)}
    numbers |= {first + i: len(needed) + k for k, i in enumerate(members)}
    rest = network._replace(
        inputs=[Input(f"value {each}", sizes[each]) for each in needed],
        steps=[
            network.steps[i]._replace(inputs=[numbers[each] for each in network.steps[i].inputs])
            for i in members
        ],
        outputs=[numbers[end] for end in given],
        output_names=[f"value {end}" for end in given],
    )
    return rest, needed, given
