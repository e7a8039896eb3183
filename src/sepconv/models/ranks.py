"""Chooses the rank of each of several layers under a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = ["Option", "cheaper_ranks", "smallest_rank", "spend"]


class Option(NamedTuple):
    """A way to replace one layer.

    Attributes:
        rank: its depth multiplier; None where it stays as it is.
        cost: in the unit of the budget.
        error: the squared relative error.
    """

    rank: int | None
    cost: int
    error: float


def cheaper_ranks(taps: int, filters: int) -> int:
    """The greatest rank at which a separable convolution takes fewer multiply-adds; 0 for none.

    A convolution takes one multiply-add a pixel for each weight of its kernels. An input channel
    has ``taps * filters`` weights against ``rank * (taps + filters)``.

    Example:
        >>> cheaper_ranks(9, 64), cheaper_ranks(1, 64)
        (7, 0)
    """
    return (taps * filters - 1) // (taps + filters)


def smallest_rank(error: Callable[[int], float], allowed: float, highest: int) -> int | None:
    """The smallest rank from 1 to `highest` whose error is allowed, or None.

    Errors decrease with the rank, so it is found by bisection.

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
    """Chooses one option for each layer, with a small total error and a cost within the budget.

    All layers start at their best options. The layer that loses least for what it saves moves to a
    cheaper one, along the convex hull of its options, until the budget is met: the choice of
    Lagrange multipliers. The rest of the budget pays for the best single steps back.

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
