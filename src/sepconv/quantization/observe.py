"""What the values of a float network are on calibration data: ranges, histograms, channels' sums.

The network runs batch by batch, with a part of its values as outputs; nothing of a batch is kept
but counts. It runs over the data twice: a histogram needs the extremes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sepconv.program.network import Network
from sepconv.program.program import Program
from sepconv.quantization.ranges import BINS, Histogram

__all__ = ["Channels", "Runner", "Seen", "batches_of", "examples_used", "observe", "spread"]

#: Outputs of one program, below what a network may have.
_MOST_OUTPUTS = 200

#: Bytes of the values of a batch, about.
_BATCH_BYTES = 1 << 28

#: The most numbers of a value of a batch that are counted, of places that are evenly apart; the
#: extremes are those of all. A histogram of more is hardly another one.
_MOST_COUNTED = 1 << 17

#: The most pixels of a value of a batch that channels' means are taken over, likewise.
_MOST_PIXELS = 1 << 12


class Channels(NamedTuple):
    """Of a value's channels, each over all else.

    Attributes:
        mean: of its numbers.
        square: the mean of their squares.
        greatest: the largest size.
    """

    mean: np.ndarray
    square: np.ndarray
    greatest: np.ndarray


class Seen(NamedTuple):
    """What was seen of a value.

    Attributes:
        histogram: of all its numbers.
        channels: where the axis of its channels was asked for.
        finite: whether all numbers were.
    """

    histogram: Histogram
    channels: Channels | None
    finite: bool


class _Extremes:
    """Of one value, what the first pass adds up.

    Args:
        axis: of its channels, where they are wanted.
        is_input: whether it may be of bytes.
    """

    def __init__(self, axis: int | None, is_input: bool) -> None:
        self._axis = axis
        self.least, self.greatest = np.inf, -np.inf
        self.whole, self.finite = is_input, True
        self._count = 0
        self._sums: list[np.ndarray] = []

    def add(self, x: np.ndarray) -> None:
        if not x.size:
            return
        self.least = min(self.least, float(x.min()))
        self.greatest = max(self.greatest, float(x.max()))
        # What is not finite shows in the extremes, and NaN in both.
        self.finite = self.finite and bool(np.isfinite([x.min(), x.max()]).all())
        if self.whole:
            self.whole = bool(((x >= 0) & (x <= 255) & (x == np.rint(x))).all())
        if self._axis is None or not self.finite:
            return
        rest = tuple(i for i in range(x.ndim) if i != self._axis)
        greatest = np.maximum(x.max(rest), -x.min(rest))
        by_channel = np.moveaxis(x, self._axis, -1).reshape(-1, x.shape[self._axis])
        wide = spread(by_channel, _MOST_PIXELS).astype(np.float64)
        self._count += len(wide)
        sums = [wide.sum(0), (wide * wide).sum(0), greatest]
        if self._sums:
            old = self._sums
            sums = [old[0] + sums[0], old[1] + sums[1], np.maximum(old[2], sums[2])]
        self._sums = sums

    @property
    def channels(self) -> Channels | None:
        """Means; None where there were no numbers."""
        if not self._sums:
            return None
        return Channels(self._sums[0] / self._count, self._sums[1] / self._count, self._sums[2])


def _binned(numbers: np.ndarray, least: float, greatest: float) -> np.ndarray:
    """How many numbers are in each of `BINS` bins between two that they lie between.

    In float64: NumPy's histogram refuses float32 numbers of which fewer than bins differ.
    """
    places = (numbers.astype(np.float64) - least) * (BINS / (greatest - least))
    return np.bincount(np.minimum(places.astype(np.int64), BINS - 1), minlength=BINS)


def spread(x: np.ndarray, most: int) -> np.ndarray:
    """As many rows of an array at most, evenly apart."""
    if len(x) <= most:
        return x
    return x[np.linspace(0, len(x) - 1, most).astype(np.int64)]


def examples_used(network: Network, count: int, most: int) -> int:
    """How many of `count` examples to use, at most `most`.

    Where the network fixes the batch they are whole ones, and one of them at least.

    Example:
        >>> from sepconv.program.network import Input
        >>> network = Network("float32", [Input("x", (5, 2))], [], [0], ["y"], [])
        >>> examples_used(network, 20, 16), examples_used(network, 20, 3)
        (15, 5)
    """
    fixed = network.inputs[0].shape[0]
    return min(count, most) if fixed is None else min(most // fixed or 1, count // fixed) * fixed


def batches_of(network: Network, arrays: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """The inputs of a network in batches whose values fit into a moderate memory.

    Args:
        network: whose values are wanted.
        arrays: its inputs, of one length; where the network fixes the batch, of its multiples.
    """
    fixed = network.inputs[0].shape[0]
    size = fixed
    if size is None:
        # A program says itself what its values take, if each had memory of its own.
        shapes = [(1, *array.shape[1:]) for array in arrays]
        one = max(Program(network, keep=False).memory(*shapes).naive, 1)
        size = max(1, min(_BATCH_BYTES // one, 64))
    for begin in range(0, len(arrays[0]), size):
        yield [array[begin : begin + size] for array in arrays]


class Runner:
    """A float network with values of its middle as outputs.

    Args:
        network: which is computed.
        values: numbers of values; all of them where None.
    """

    def __init__(self, network: Network, values: Sequence[int] | None = None) -> None:
        count = len(network.inputs) + len(network.steps)
        self._values = list(range(count)) if values is None else list(values)
        self._programs = []
        for begin in range(0, len(self._values), _MOST_OUTPUTS):
            part = self._values[begin : begin + _MOST_OUTPUTS]
            names = [f"value {value}" for value in part]
            changed = network._replace(outputs=part, output_names=names)
            self._programs.append((part, Program(changed, keep=False)))

    def __call__(self, batch: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the number of each value, and what it is on a batch."""
        for part, program in self._programs:
            found = program(*batch)
            yield from zip(part, found if isinstance(found, tuple) else (found,), strict=True)


def observe(
    network: Network, arrays: Sequence[np.ndarray], axes: Mapping[int, int] | None = None
) -> list[Seen]:
    """What all values of a network are on data.

    Args:
        network: of float32.
        arrays: its inputs, of one length.
        axes: of values whose channels are wanted, the axis of these.

    Example:
        >>> from sepconv.program.network import Input, Step
        >>> step = Step("unary", "s", [0], {"function": "square", "a": 0.0, "b": 0.0, "c": 0.0})
        >>> network = Network("float32", [Input("x", (None, 2))], [step], [1], ["y"], [])
        >>> x, y = observe(network, [np.float32([[1, 2], [3, -4]])], {0: 1})
        >>> x.histogram.least, y.histogram.greatest, x.channels.mean.tolist()
        (-4.0, 16.0, [2.0, -1.0])
    """
    axes = axes or {}
    count = len(network.inputs) + len(network.steps)
    extremes = [_Extremes(axes.get(value), value < len(network.inputs)) for value in range(count)]
    run = Runner(network)
    for batch in batches_of(network, arrays):
        for value, x in run(batch):
            extremes[value].add(x)
    counts = [np.zeros(BINS, np.int64) for _ in range(count)]
    for batch in batches_of(network, arrays):
        for value, x in run(batch):
            seen = extremes[value]
            if seen.finite and seen.least < seen.greatest:
                numbers = spread(x.reshape(-1), _MOST_COUNTED)
                numbers = numbers[numbers != 0]
                counts[value] += _binned(numbers, seen.least, seen.greatest)
    return [
        Seen(
            Histogram(seen.least, seen.greatest, counts[i], seen.whole), seen.channels, seen.finite
        )
        for i, seen in enumerate(extremes)
    ]
