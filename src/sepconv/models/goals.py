"""How far `sepconv.factorize` goes: its goal, the ranks that convolutions may have, the choice."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np

from sepconv.arguments import positive_sizes
from sepconv.models.factorizable import Factorizable
from sepconv.models.factorize_report import LayerReport
from sepconv.models.lowrank import Moments
from sepconv.models.ranks import Option, smallest_rank, spend

__all__ = ["Goal", "choose", "goal_of", "options_of", "passes", "progress", "row_of"]

#: The most bytes of moments that are gathered in one pass over the data; more layers take more
#: passes.
_PASS_BYTES = 1 << 30
#: A relative error that is taken for none in float32.
_EXACT = 1e-6

Some = TypeVar("Some", bound=Factorizable)


class Goal(NamedTuple):
    """The argument of `factorize` that sets the goal, with its value."""

    name: str
    value: Any

    @property
    def is_budget(self) -> bool:
        """Whether it is of the whole network, which convolutions share."""
        return self.name in ("flops", "parameters")

    def cost(self, convolution: Factorizable, rank: int | None) -> int:
        """What a convolution costs at a rank, or (None) as it is."""
        if self.name == "parameters":
            return convolution.parameters(rank)
        return convolution.multiply_adds(rank)

    def budget(self, total: int) -> int:
        """What is left of a total."""
        return int(self.value * total) if isinstance(self.value, float) else self.value


def goal_of(*values: Any) -> Goal:
    """The one goal among rank, energy, max_error, flops and parameters that is not None.

    Raises:
        ValueError: not exactly one is given, or it is out of range.
        TypeError: it is no number.

    Example:
        >>> goal_of(None, None, 0.1, None, None)
        Goal(name='max_error', value=0.1)
    """
    names = "rank", "energy", "max_error", "flops", "parameters"
    given = [Goal(n, v) for n, v in zip(names, values, strict=True) if v is not None]
    if len(given) != 1:
        raise ValueError(
            f"Exactly one of {', '.join(names)} must be given. "
            f"Received: {', '.join(goal.name for goal in given) or 'none'}"
        )
    name, value = given[0]
    if name == "rank":
        return Goal(name, positive_sizes(name, value, 1)[0])
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number. Received: {name}={value!r}") from None
    if name == "max_error":
        if not number >= 0:
            raise ValueError(f"max_error must be at least 0. Received: max_error={value!r}")
        return Goal(name, number)
    if name != "energy" and hasattr(value, "__index__"):
        if number < 1:
            raise ValueError(f"{name} must be positive. Received: {name}={value!r}")
        return Goal(name, operator.index(value))
    if not 0 < number <= 1:
        integers = "" if name == "energy" else ", or an integer"
        raise ValueError(f"{name} must be in (0, 1]{integers}. Received: {name}={value!r}")
    return Goal(name, number)


def passes(convolutions: Sequence[Some]) -> Iterator[list[Some]]:
    """Groups of convolutions whose moments fit into memory together."""
    group: list[Some] = []
    size = 0
    for convolution in convolutions:
        needed = 8 * convolution.kernel[..., 0].size ** 2
        if group and size + needed > _PASS_BYTES:
            yield group
            group, size = [], 0
        group.append(convolution)
        size += needed
    if group:
        yield group


def options_of(
    convolution: Factorizable,
    goal: Goal,
    moments: Moments | None,
    highest: int,
    track: Callable[..., Iterable[Any]],
) -> list[Option]:
    """The options of a layer: all of them under a budget, else one, or none."""

    def error(rank: int) -> float:
        return convolution.fit(rank, moments).error

    def option(rank: int) -> Option:
        return Option(rank, goal.cost(convolution, rank), error(rank) ** 2)

    if goal.is_budget:
        ranks = range(1, highest + 1)
        return [option(rank) for rank in track(ranks, convolution.path)]
    if goal.name == "rank":
        rank = min(goal.value, convolution.full_rank)
        return [option(rank)] if rank <= highest else []
    allowed = goal.value if goal.name == "max_error" else np.sqrt(1 - goal.value)
    smallest = smallest_rank(error, max(allowed, _EXACT), highest)
    return [] if smallest is None else [option(smallest)]


def choose(layers: list[list[Option]], goal: Goal, total: int) -> list[Option]:
    """An option for each layer; `total` is what the whole network costs.

    Raises:
        ValueError: the budget is out of reach.
    """
    if not goal.is_budget:
        return [options[0] for options in layers]
    now = sum(options[-1].cost for options in layers if options[-1].rank is None)
    others = total - now if now else 0
    budget = goal.budget(total)
    chosen = spend(layers, budget - others)
    if chosen is None:
        least = others + sum(min(o.cost for o in options) for options in layers)
        what = "multiply-adds" if goal.name == "flops" else "parameters"
        raise ValueError(
            f"{goal.name} must be at least {least} (of {total}): with rank 1 wherever that is "
            f"cheaper so many {what} are left. Received: {goal.name}={goal.value!r}"
        )
    return chosen


def row_of(convolution: Factorizable, option: Option, goal: Goal | None = None) -> LayerReport:
    """What became of a convolution, as a row of the report."""
    rank, note = option.rank, ""
    error = svd_error = 0.0
    if rank is not None:
        error, svd_error = convolution.fits[rank].error, convolution.fits[rank].svd_error
    elif not convolution.cheaper:
        note = "a separable convolution is no cheaper at any rank"
    elif goal is not None and goal.is_budget:
        note = "the budget leaves it room"
    else:
        note = f"it needs a rank above {convolution.cheaper}, where separable is no cheaper"
    return LayerReport(
        convolution.path,
        rank,
        convolution.full_rank,
        (convolution.parameters(None), convolution.parameters(rank)),
        (convolution.multiply_adds(None), convolution.multiply_adds(rank)),
        error,
        svd_error,
        note,
    )


@contextmanager
def progress() -> Iterator[Callable[..., Iterable[Any]]]:
    """`track(items, title)` yields the items, with a progress bar on a terminal."""

    def plain(items: Iterable[Any], title: str) -> Iterable[Any]:
        return items

    try:
        from rich.console import Console
        from rich.progress import Progress
    except ModuleNotFoundError:
        yield plain
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield plain
        return
    with Progress(console=console, transient=True) as progress:
        yield lambda items, title: progress.track(items, description=title)
