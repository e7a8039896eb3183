"""Inputs in a network's order: of a mapping by names, or a list, as Keras' models are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["by_name", "listed"]


def by_name(given: Mapping[str, Any], names: Sequence[str], what: str) -> list[Any]:
    """The values of a mapping in the order of the names; others are left out, as Keras does.

    Args:
        given: has a value for each of the names.
        names: of a network's inputs.
        what: the beginning of the error.

    Raises:
        ValueError: a name is missing.

    Example:
        >>> by_name({"left": 1, "right": 2, "label": 3}, ["right", "left"], "A call")
        [2, 1]
    """
    if not set(names) <= set(given):
        raise ValueError(
            f"{what} must have an array for each of the inputs {list(names)}. Received: "
            f"{sorted(map(str, given))}"
        )
    return [given[name] for name in names]


def listed(inputs: Sequence[Any], wanted: Sequence[Sequence[Any]], what: str) -> Sequence[Any]:
    """The arguments of a call, one an input.

    One argument may hold all of them: a mapping by names, and of several inputs a list or a tuple
    in their order.

    Args:
        inputs: the arguments.
        wanted: what the network takes, each with its name first.
        what: the beginning of the error.

    Raises:
        ValueError: a name is missing.

    Example:
        >>> listed(({"y": 2, "x": 1},), [("x",), ("y",)], "A call")
        [1, 2]
        >>> listed(([1, 2],), [("x",), ("y",)], "A call")
        [1, 2]
        >>> listed(([1, 2],), [("x",)], "A call")  # the numbers of one input
        ([1, 2],)
    """
    if len(inputs) == 1:
        (only,) = inputs
        if isinstance(only, Mapping):
            return by_name(only, [each[0] for each in wanted], what)
        if len(wanted) > 1 and isinstance(only, list | tuple):
            return only
    return inputs
