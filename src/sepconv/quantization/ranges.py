"""The scale and the zero point of a value: the range that 256 numbers are spread over.

A narrower range rounds finer, and clamps more. The best one has the least expected squared error on
the calibration data; of a number that goes into a function alone, of the function's result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["BINS", "Histogram", "Scale", "best", "of_range"]

#: How finely values are counted. A range that loses nine tenths of the whole still has 200 bins.
BINS = 2048

#: Ends of ranges that are tried, as parts of the extremes, and how many for an end.
_LEAST_PART = 0.1
_TRIED = 64

#: The least scale: those of products and quotients of two stay normal in float32.
_LEAST = 1e-15


class Scale(NamedTuple):
    """What a quantised value stands for: ``scale * (q - zero_point)``.

    Attributes:
        scale: as a float32 holds it.
        zero_point: the number that is zero, 0 to 255.

    Example:
        >>> Scale(0.5, 10).quantized(np.array([-9.0, 0.25, 1.0])).tolist()
        [0, 10, 12]
        >>> Scale(0.5, 10).real(np.uint8([0, 12])).tolist()
        [-5.0, 1.0]
        >>> Scale(0.5, 10).rounded(np.float32([-np.inf, 0.75, np.nan])).tolist()
        [-5.0, 1.0, 0.0]
    """

    scale: float
    zero_point: int

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest number."""
        return -self.zero_point * self.scale, (255 - self.zero_point) * self.scale

    def quantized(self, x: np.ndarray) -> np.ndarray:
        """The nearest of the 256 numbers."""
        # In place, since whole activations go through here some thousand times a network.
        whole = np.array(x, np.float64)
        whole /= self.scale
        np.rint(whole, out=whole)
        np.clip(whole, -self.zero_point, 255 - self.zero_point, out=whole)
        whole[np.isnan(whole)] = 0
        whole += self.zero_point
        return whole.astype(np.uint8)

    def real(self, q: np.ndarray) -> np.ndarray:
        """What numbers stand for, in float64."""
        return (q.astype(np.int64) - self.zero_point) * self.scale

    def rounded(self, x: np.ndarray) -> np.ndarray:
        """The nearest of the 256 numbers as what it stands for, in float32."""
        table = self.real(np.arange(256, dtype=np.uint8)).astype(np.float32)
        return table[self.quantized(x)]


class Histogram(NamedTuple):
    """How often a value's numbers were what.

    Attributes:
        least: the least of them.
        greatest: the greatest.
        counts: of numbers that are not zero, in `BINS` bins between the two.
        whole: whether all were integers of 0 to 255.
    """

    least: float
    greatest: float
    counts: np.ndarray
    whole: bool = False

    @property
    def centers(self) -> np.ndarray:
        """The middles of the bins."""
        edges = np.linspace(self.least, self.greatest, len(self.counts) + 1)
        return (edges[1:] + edges[:-1]) / 2


def of_range(least: float, greatest: float) -> Scale:
    """The scale and zero point for numbers between two, and zero.

    Example:
        >>> of_range(0.0, 51.0).zero_point, of_range(-1.0, 3.0).zero_point
        (0, 64)
    """
    least, greatest = min(least, 0.0), max(greatest, 0.0)
    scale = float(np.float32(max((greatest - least) / 255, _LEAST)))
    return Scale(scale, int(np.clip(np.rint(-least / scale), 0, 255)))


def best(
    seen: Histogram,
    function: Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    extremes: bool = False,
) -> Scale:
    """The scale and zero point of the least expected squared error.

    Args:
        seen: the value's numbers.
        function: that the value goes into alone, whose result counts; None for the value itself.
        extremes: whether nothing may be clamped.

    Example:
        >>> counts = np.ones(BINS)
        >>> best(Histogram(-1.0, 3.0, counts)).zero_point
        64
        >>> counts[200:] = 1e-9  # next to nothing is above -0.8
        >>> best(Histogram(-1.0, 1.0, counts)).ends[1] < 0.5
        True
    """
    if seen.whole:
        return Scale(1.0, 0)
    if extremes or seen.least == seen.greatest or not seen.counts.any():
        return of_range(seen.least, seen.greatest)
    x = seen.centers
    y = x if function is None else function(x)
    # How much of the error of x is one of y.
    steepness = np.ones_like(x) if function is None else np.gradient(y, x) ** 2
    errors = _Errors(seen.counts, x, y, steepness)
    parts = np.linspace(_LEAST_PART, 1.0, _TRIED)
    lowest, highest = min(seen.least, 0.0), max(seen.greatest, 0.0)
    lows = lowest * parts if lowest < 0 else np.zeros(1)
    highs = highest * parts if highest > 0 else np.zeros(1)
    low, high = (grid.ravel() for grid in np.meshgrid(lows, highs, indexing="ij"))
    found = int(np.argmin(errors.of(low, high)))
    return of_range(float(low[found]), float(high[found]))


class _Errors:
    """Squared errors of ranges, by sums over all numbers up to each."""

    def __init__(
        self, counts: np.ndarray, x: np.ndarray, y: np.ndarray, steepness: np.ndarray
    ) -> None:
        self._x, self._y = x, y
        terms = (counts * steepness, counts, counts * y, counts * y * y)
        self._sums = [np.concatenate([[0.0], np.cumsum(term)]) for term in terms]

    def of(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Of ranges, by their ends: what is inside is rounded, what is outside is clamped."""
        first, last = np.searchsorted(self._x, low), np.searchsorted(self._x, high)
        steps = (high - low) / 255
        inside = self._sums[0][last] - self._sums[0][first]
        below = self._clamped(np.zeros_like(first), first, low)
        above = self._clamped(last, np.full_like(last, len(self._x)), high)
        return inside * steps**2 / 12 + below + above

    def _clamped(self, first: np.ndarray, last: np.ndarray, end: np.ndarray) -> np.ndarray:
        count, total, squares = (sums[last] - sums[first] for sums in self._sums[1:])
        y = np.interp(end, self._x, self._y)
        return np.maximum(squares - 2 * y * total + y * y * count, 0.0)
