"""The difference of two networks' outputs, and the difference that is allowed; of arrays alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sepconv.program.network import Network
from sepconv.program.program import as_list

__all__ = [
    "allowed",
    "changed_outputs",
    "difference",
    "differences",
    "moved_array",
    "plainly_apart",
    "roundings",
    "usual",
    "within",
]

#: The difference that is always allowed, relative to the largest value.
_ALWAYS = 1e-4
#: The difference that is always allowed, in units in the last place; for the half types it is the
#: larger of the two.
_ULPS = 8
#: The rounding error of a network, over the effect of one unit in the last place of its input.
_ROUNDINGS = 30
#: The rounding error of a program of a half type, over the change of its own results.
_OWN_ROUNDINGS = 2


def difference(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    """The largest difference between outputs, relative to the largest of each expected one.

    Values that are not finite must be the same in both, and so must values that are no floats.

    Returns:
        The largest over the outputs; infinite where shapes, non-finite values or values of other
        types differ.

    Example:
        >>> difference([np.array([1.0, 4.0])], [np.array([1.5, 4.0])])
        0.125
        >>> difference([np.array([1, 4])], [np.array([1, 5])])
        inf
    """
    parts = differences(expected, found)
    exact = (
        [_is_exact(a) for a in expected] if len(parts) == len(expected) else [False] * len(parts)
    )
    return max(
        (float("inf") if e and d else d for e, d in zip(exact, parts, strict=True)), default=0.0
    )


def differences(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> list[float]:
    """The difference of each output.

    Returns:
        For floats as in `difference`; for anything else, the part of the elements that differ.

    Example:
        >>> differences([np.array([1, 4]), np.array([2.0])], [np.array([1, 5]), np.array([1.0])])
        [0.5, 0.5]
    """
    if len(expected) != len(found):
        return [float("inf")]
    return [_apart(a, b) for a, b in zip(expected, found, strict=True)]


def _apart(expected: np.ndarray, found: np.ndarray) -> float:
    """The difference of one output; see `differences`."""
    if expected.shape != found.shape or _is_exact(expected) != _is_exact(found):
        return float("inf")
    if _is_exact(expected):
        return float(np.mean(expected != found)) if expected.size else 0.0
    kind = "complex128" if "c" in (expected.dtype.kind, found.dtype.kind) else "float64"
    a, b = expected.astype(kind), found.astype(kind)
    finite = np.isfinite(a)
    same = np.array_equal(finite, np.isfinite(b))
    if not same or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    a, b = a[finite], b[finite]
    distance = float(np.abs(a - b).max(initial=0.0))
    largest = float(np.abs(a).max(initial=0.0))
    if not distance:
        return 0.0
    return distance / largest if largest else float("inf")


def plainly_apart(expected: np.ndarray, found: np.ndarray, limit: float) -> bool:
    """Whether floats differ by more than `limit` of the largest: a quick test in their own dtype.

    False where the expected values are all zero, not all finite, or no floats.

    Example:
        >>> plainly_apart(np.array([1.0, 4.0]), np.array([1.5, 4.0]), 0.1)
        True
    """
    if expected.shape != found.shape:
        return True
    if not expected.size or expected.dtype.kind != "f" or found.dtype != expected.dtype:
        return False
    with np.errstate(all="ignore"):
        largest = max(float(expected.max()), -float(expected.min()))
        if not 0 < largest < float("inf"):
            return False
        between = expected - found
        # "not <=" instead of ">": with NaN they differ.
        return not max(float(between.max()), -float(between.min())) <= limit * largest


def _is_exact(array: np.ndarray) -> bool:
    """Whether its values are integers, booleans or text. To NumPy, bfloat16 is an unknown type."""
    return array.dtype.kind in "biuSUO"


def moved_array(array: np.ndarray, epsilon: float, rng: np.random.Generator) -> np.ndarray:
    """An array whose floats are one unit in the last place away, up or down; others as it is.

    Args:
        array: of any type.
        epsilon: the relative size of such a unit, of numbers from 1 to 2.
        rng: says which go up.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> moved_array(np.array([1.0, -6.0]), 2.0**-10, rng).tolist() != [1.0, -6.0]
        True
    """
    if array.dtype.kind != "f":
        return array
    with np.errstate(all="ignore"):
        _, exponent = np.frexp(array)
        unit = np.ldexp(np.full(array.shape, epsilon, "float64"), exponent - 1)
        unit *= np.where(rng.random(array.shape) < 0.5, -1, 1) * (array != 0)
        return (array + np.where(np.isfinite(unit), unit, 0)).astype(array.dtype)


def allowed(
    expected: Sequence[np.ndarray], moved: Sequence[np.ndarray], epsilon: float
) -> list[float]:
    """How far each output of a copy may lie from the original's.

    Args:
        expected: the original's outputs.
        moved: its outputs for inputs that `moved` has changed; `expected` again where these are not
            known.
        epsilon: `precision` of the model.

    Returns:
        The difference allowed of each output: 30 times what the move does, at most 1. For floats it
        is at least 1e-4 and eight units in the last place, relative to the largest value.

    Example:
        >>> allowed([np.array([1.0])], [np.array([1.0001])], 1e-7)
        [0.0029999999999996696]
    """
    least = max(_ALWAYS, _ULPS * epsilon)
    sensitivities = differences(expected, moved)
    if len(sensitivities) != len(expected):
        sensitivities = [0.0] * len(expected)
    return [
        max(0.0 if _is_exact(array) else least, min(_ROUNDINGS * s, 1.0) if np.isfinite(s) else 0.0)
        for array, s in zip(expected, sensitivities, strict=True)
    ]


def roundings(
    found: Sequence[np.ndarray], moved: Sequence[np.ndarray], bounds: Sequence[float]
) -> list[float]:
    """Bounds that leave room for a program's own roundings, which a half type makes large.

    Args:
        found: its outputs.
        moved: those of `changed_outputs`.
        bounds: those of `allowed`.

    Returns:
        For each output the larger of its bound and of twice the change, at most 1.

    Example:
        >>> roundings([np.array([1.0, 2.0])], [np.array([1.0, 2.25])], [0.0625])
        [0.25]
    """
    changes = differences(found, moved)
    return [
        max(bound, min(_OWN_ROUNDINGS * change, 1.0)) if np.isfinite(change) else bound
        for bound, change in zip(bounds, changes, strict=True)
    ]


def changed_outputs(program: Any, inputs: Sequence[np.ndarray], epsilon: float) -> list[np.ndarray]:
    """What a program of a half type gives where its roundings fall to another side.

    Its inputs are moved by one unit in the last place, and so are the weights that it has in
    bfloat16: of a deep network these matter more, since each layer adds its own. (Of a program
    with parts that Keras computes only the inputs are moved.)

    Args:
        program: a `Program` or a `PartialProgram`.
        inputs: what it takes.
        epsilon: the relative size of such a unit, of numbers from 1 to 2.
    """
    rng = np.random.default_rng(0)
    network = getattr(program, "network", None)
    moved = program if network is None else type(program)(_with_moved_weights(network, rng))
    return as_list(moved(*(moved_array(x, epsilon, rng) for x in inputs)))


def _with_moved_weights(network: Network, rng: np.random.Generator) -> Network:
    """A network whose weights of bfloat16 are one unit in the last place away, up or down."""

    def move(tensor: np.ndarray) -> np.ndarray:
        if tensor.dtype != np.uint16:
            return tensor
        magnitude = tensor & 0x7FFF
        movable = (magnitude > 0) & (magnitude < 0x7F7F)  # not to zero, nor to infinity
        step = np.where(rng.random(tensor.shape) < 0.5, -1, 1) * movable
        return (tensor + step).astype(np.uint16)

    return network._replace(tensors=[move(tensor) for tensor in network.tensors])


def usual(epsilon: float) -> float:
    """The difference that roundings make of most networks at most, relative to the largest value.

    Args:
        epsilon: the relative precision of what a network computes in.

    Example:
        >>> usual(2.0**-7)
        0.234375
    """
    return _ROUNDINGS * epsilon


def within(apart: Sequence[float], bounds: Sequence[float]) -> bool:
    """Whether every output's difference is allowed."""
    return len(apart) == len(bounds) and all(a <= b for a, b in zip(apart, bounds, strict=True))
