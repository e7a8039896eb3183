"""Makes the int8 network of a float one: the best of a few ways, by their error on examples."""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sepconv.program.network import Network, Step
from sepconv.program.program import Program
from sepconv.quantization.atoms import Atoms, split
from sepconv.quantization.equalise import equalise
from sepconv.quantization.moments import Moments, moments
from sepconv.quantization.observe import Runner, Seen, batches_of, examples_used, observe
from sepconv.quantization.ranges import Scale
from sepconv.quantization.record import Block, Record
from sepconv.quantization.refine import refined
from sepconv.quantization.rewrite import Rewritten, rewrite
from sepconv.quantization.scales import channel_axes, logits, scales_of

__all__ = ["blocks_named", "quantized"]

#: The most examples that errors are measured on.
_TRIALS = 16

#: The most that ranges are judged by.
_MOST_JUDGED = 256


class _Trial:
    """Examples, and what the float network makes of them.

    Args:
        atoms: of the float network, maybe equalised.
        arrays: the calibration data.
        original: of the float network itself, whose outputs are wanted.
    """

    def __init__(self, atoms: Atoms, arrays: Sequence[np.ndarray], original: Atoms) -> None:
        network = atoms.network
        places = _places(network, len(arrays[0]), _TRIALS)
        self.batches = list(batches_of(network, [array[places] for array in arrays]))
        self.examples = len(places)
        self._logits = logits(network)
        first = len(network.inputs)
        ends = {block: first + i for i, block in enumerate(atoms.blocks)}
        #: The value that each block gives.
        self.ends = ends
        wanted_values = sorted({*ends.values(), *self._logits})
        run = Runner(network, wanted_values)
        last = Runner(original.network, self._logits)
        self._expected = [dict(run(batch)) | dict(last(batch)) for batch in self.batches]

    def measured(self, made: Rewritten, at: Sequence[int]) -> dict[int, tuple[float, float]]:
        """The mean squares of values, and of their differences from the float network's."""
        there = [value for value in at if value in made.values]
        sums = {value: np.zeros(2) for value in there}
        network, numbers = _as_floats(made, there)
        run = Runner(network, list(numbers))
        for batch, expected in zip(self.batches, self._expected, strict=True):
            for number, x in run(batch):
                real = expected[numbers[number]].astype(np.float64)
                sums[numbers[number]] += (real * real).sum(), ((x - real) ** 2).sum()
        return {value: (float(sums[value][0]), float(sums[value][1])) for value in there}

    def error(self, made: Rewritten) -> float:
        """As `Record` has it."""
        found = self.measured(made, self._logits)
        return max(
            math.sqrt(noise / signal) if signal else (math.inf if noise else 0.0)
            for signal, noise in found.values()
        )


class _Way(NamedTuple):
    """A way to quantise.

    Attributes:
        atoms: maybe equalised.
        seen: of their values.
        scales: of their values.
        trial: examples of theirs.
        correct: whether biases are.
        moments: of the layers' rows, where weights are rounded by them; else none.
    """

    atoms: Atoms
    seen: Sequence[Seen]
    scales: Sequence[Scale]
    trial: _Trial
    correct: bool
    moments: Mapping[int, Moments]


def _as_floats(made: Rewritten, at: Sequence[int]) -> tuple[Network, dict[int, int]]:
    """The network with values of the atoms as floats, and what each of their numbers is of."""
    steps = list(made.network.steps)
    numbers = {}
    for value in at:
        number, scale = made.values[value]
        if scale is not None:
            steps.append(Step("dequantize", "measured", [number], scale._asdict()))
            number = len(made.network.inputs) + len(steps) - 1
        numbers[number] = value
    return made.network._replace(steps=steps), numbers


def quantized(
    network: Network,
    arrays: Sequence[np.ndarray],
    keep: Sequence[str] = (),
    tolerance: float | None = None,
) -> tuple[Rewritten, Record]:
    """The int8 network of a float one, and the record of it.

    Args:
        network: of float32.
        arrays: calibration data: its inputs, of one length.
        keep: names or patterns of blocks that stay float.
        tolerance: None, or the largest error of the outputs.

    Raises:
        ValueError: no block has a name of `keep`.
    """
    wanted = dict.fromkeys(blocks_named(network, keep), "as asked for")
    atoms = split(network)
    ways = _ways(atoms, arrays, atoms)
    other = equalise(atoms, ways[0].seen)
    if other is not None:
        ways += _ways(other, arrays, atoms)
    tried = [_made(way, wanted) for way in ways]
    errors = [way.trial.error(made) for made, way in zip(tried, ways, strict=True)]
    best = int(np.argmin(errors))
    made, way, error = tried[best], ways[best], errors[best]
    finer = way._replace(scales=_refined(way, arrays))
    again = _made(finer, wanted)
    is_finer = finer.trial.error(again) < error
    if is_finer:
        made, way, error = again, finer, finer.trial.error(again)
    if tolerance is not None and not error <= tolerance:
        made, error = _within(way, wanted, made, tolerance)
    blocks = _blocks(network, made, way, arrays)
    record = Record(
        blocks,
        error=error,
        examples=way.trial.examples,
        equalised=way.atoms is not atoms,
        corrected=way.correct,
        adapted=bool(way.moments),
        refined=is_finer,
    )
    return made, record


def blocks_named(network: Network, keep: Sequence[str]) -> list[int]:
    """The numbers of the steps with names, or that patterns fit.

    Raises:
        ValueError: one fits none.

    Example:
        >>> from sepconv.program.network import Input, Step
        >>> square = {"function": "square", "a": 0.0, "b": 0.0, "c": 0.0}
        >>> steps = [Step("unary", f"square_{i}", [i], square) for i in range(2)]
        >>> network = Network("float32", [Input("x", (None,))], steps, [2], ["y"], [])
        >>> blocks_named(network, ["square_1"]), blocks_named(network, ["square_*"])
        ([1], [0, 1])
    """
    names = [step.name for step in network.steps]
    found: set[int] = set()
    for pattern in keep:
        fitting = {i for i, name in enumerate(names) if fnmatch.fnmatchcase(name, pattern)}
        if not fitting:
            close = difflib.get_close_matches(pattern, names, 3, 0.4)
            raise ValueError(
                f"keep must have names of blocks, as the record lists them, or patterns such as "
                f"'block_1*'. Received: {pattern!r}, which fits none; like it are {close}"
            )
        found |= fitting
    return sorted(found)


def _ways(atoms: Atoms, arrays: Sequence[np.ndarray], original: Atoms) -> list[_Way]:
    """Without and with corrected biases, and with weights that are rounded together."""
    seen = observe(atoms.network, arrays, channel_axes(atoms.network))
    scales, trial = scales_of(atoms, seen), _Trial(atoms, arrays, original)
    rows = moments(atoms.network, arrays)
    ways = [(False, {}), (True, {}), *([(True, rows)] if rows else [])]
    return [_Way(atoms, seen, scales, trial, *way) for way in ways]


def _refined(way: _Way, arrays: Sequence[np.ndarray]) -> list[Scale]:
    """The scales of a way's values, chosen by what they do to the outputs."""
    network = way.atoms.network
    places = _places(network, len(arrays[0]), _MOST_JUDGED)
    examples = [array[places] for array in arrays]
    return refined(way.atoms, way.seen, way.scales, examples, logits(network))


def _places(network: Network, count: int, most: int) -> np.ndarray:
    """The numbers of some of `count` examples: whole batches where the network fixes their size.

    Else `_TRIALS` that are evenly apart come first, and others after them without order.
    """
    used = examples_used(network, count, most)
    if network.inputs[0].shape[0] is not None:
        return np.arange(used)
    first = np.unique(np.linspace(0, count - 1, min(_TRIALS, count)).round().astype(int))
    others = np.setdiff1d(np.arange(count), first)
    return np.concatenate([first, np.random.default_rng(0).permutation(others)])[:used]


def _made(way: _Way, keep: Mapping[int, str]) -> Rewritten:
    return rewrite(way.atoms, way.seen, way.scales, keep, correct=way.correct, moments=way.moments)


def _within(
    way: _Way, keep: Mapping[int, str], made: Rewritten, tolerance: float
) -> tuple[Rewritten, float]:
    """Keeps the fewest of the noisiest blocks float with which the error is small enough."""
    order = _noisiest(way, made)
    why = "its noise is too large for the tolerance"
    most: tuple[Rewritten, float] | None = None
    low, high = 0, len(order)  # `low` blocks are too few, and `high` are enough
    while high - low > 1 or most is None:
        count = (low + high) // 2 if high - low > 1 else high
        found = _made(way, {**keep, **dict.fromkeys(order[:count], why)})
        error = way.trial.error(found)
        if error <= tolerance or count == len(order):
            most, high = (found, error), count
        else:
            low = count
    return most


def _noisiest(way: _Way, made: Rewritten) -> list[int]:
    """The blocks in int8, those that add the most noise first."""
    trial = way.trial
    ratios = {
        value: noise / signal if signal else 0.0
        for value, (signal, noise) in trial.measured(made, list(trial.ends.values())).items()
    }
    added: dict[int, float] = {}
    first = len(way.atoms.network.inputs)
    for step, block in zip(way.atoms.network.steps, way.atoms.blocks, strict=True):
        if block in made.floats:
            continue
        before = max((ratios.get(value, 0.0) for value in step.inputs if value >= first), default=0)
        added[block] = max(added.get(block, 0.0), ratios.get(trial.ends[block], 0.0) - before)
    return sorted(added, key=lambda block: -added[block])


def _blocks(
    network: Network, made: Rewritten, way: _Way, arrays: Sequence[np.ndarray]
) -> list[Block]:
    """The lines of the record."""
    batch = next(iter(batches_of(network, arrays)))
    profile = Program(network, keep=False).profile(*batch)
    work = sum(step.multiply_adds for step in profile) or 1
    seconds = sum(step.seconds for step in profile) or 1.0
    trial = way.trial
    measured = trial.measured(made, list(trial.ends.values()))
    blocks = []
    for i, (step, report) in enumerate(zip(network.steps, profile, strict=True)):
        if step.operation == "constant":
            continue
        value = trial.ends[i]
        _, scale = made.values.get(value, (0, None))
        least, greatest = (math.nan, math.nan) if scale is None else scale.ends
        blocks.append(
            Block(
                step.name,
                step.operation,
                i not in made.floats,
                made.floats.get(i, ""),
                least,
                greatest,
                _decibels(*measured.get(value, (math.nan, math.nan))),
                report.multiply_adds / work,
                report.seconds / seconds,
            )
        )
    return blocks


def _decibels(signal: float, noise: float) -> float:
    if math.isnan(signal):
        return math.nan
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf
