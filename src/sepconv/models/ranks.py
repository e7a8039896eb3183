"""Which rank each of several layers gets: a choice of options under a budget, without Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = ["Option", "cheaper_ranks", "smallest_rank", "spend"]


class Option(NamedTuple):
    """What one layer may become.

    Attributes:
        rank: its depth multiplier; None where it stays as it is.
        cost: in whatever the budget counts.
        error: the squared relative error.
    """

    rank: int | None
    cost: int
    error: float


def cheaper_ranks(taps: int, filters: int) -> int:
    """The greatest rank at which a separable convolution takes fewer multiply-adds, or 0.

    Both take as many multiply-adds a pixel as their kernels have weights: ``taps * filters`` an
    input channel against ``rank * (taps + filters)``.

    Example:
        >>> cheaper_ranks(9, 64), cheaper_ranks(1, 64)
        (7, 0)
    """
    return (taps * filters - 1) // (taps + filters)


def smallest_rank(error: Callable[[int], float], allowed: float, highest: int) -> int | None:
    """The smallest rank from 1 to `highest` whose error is allowed, or None.

    Errors fall with the rank, so that halving finds it.

    Example:
        >>> smallest_rank(lambda rank: 1 / rank, 0.3, 9)
        4
    """
    if highest < 1 or error(highest) > allowed:
        return None
    low, high = 1, highest
    while low < high:
        middle = (low + high) // 2
        if error(middle) <= allowed:
            high = middle
        else:
            low = middle + 1
    return high


def spend(layers: Sequence[Sequence[Option]], budget: int) -> list[Option] | None:
    """One option a layer, of a total cost within the budget and of little total error.

    From the best options on, the layer that loses least for what it saves steps down, along the
    convex hull of its options, until the budget is met: what Lagrange multipliers choose. What
    is left of the budget then buys the best single steps back up that it can pay for.

    Returns:
        The choice, or None where the cheapest options cost more than the budget.

    Example:
        >>> wide = [Option(None, 90, 0.0), Option(2, 40, 0.1), Option(1, 20, 0.4)]
        >>> [option.rank for option in spend([wide, wide], 110)]
        [2, 2]
        >>> [option.rank for option in spend([wide, wide], 130)]
        [2, None]
    """
    if sum(min(o.cost for o in options) for options in layers) > budget:
        return None
    chosen = [min(options, key=lambda o: (o.error, o.cost)) for options in layers]

    def total() -> int:
        return sum(o.cost for o in chosen)

    while total() > budget:
        steps = [
            ((o.error - now.error) / (now.cost - o.cost), -o.cost, i, o)
            for i, (now, options) in enumerate(zip(chosen, layers, strict=True))
            for o in options
            if o.cost < now.cost
        ]
        _, _, i, option = min(steps, key=lambda step: step[:3])
        chosen[i] = option
    while True:
        left = budget - total()
        steps = [
            (now.error - o.error, -o.cost, i, o)
            for i, (now, options) in enumerate(zip(chosen, layers, strict=True))
            for o in options
            if o.error < now.error and o.cost - now.cost <= left
        ]
        if not steps:
            return chosen
        _, _, i, option = max(steps, key=lambda step: (*step[:2], -step[2]))
        chosen[i] = option
