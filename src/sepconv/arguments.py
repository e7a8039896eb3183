"""Sizes and padding as a user writes them, as tuples of integers; everything else is refused."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

__all__ = ["Padding", "Sizes", "explicit_padding", "integers", "positive_sizes"]

Sizes = int | Sequence[int]
Padding = str | Sequence[Sequence[int]] | Sequence[int]


def _integer(name: str, value: Any, received: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must consist of integers. Received: {name}={received!r}") from None


def integers(name: str, value: Any, rank: int) -> tuple[int, ...]:
    """`value` as a tuple of integers, of whatever size and number; a single one becomes `rank`.

    Raises:
        TypeError: one is no integer.

    Example:
        >>> integers("strides", 0, 2), integers("strides", [1, 2, 3], 2)
        ((0, 0), (1, 2, 3))
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_integer(name, v, value) for v in value)
    return (_integer(name, value, value),) * rank


def positive_sizes(name: str, value: Any, rank: int) -> tuple[int, ...]:
    """`value` as a tuple of `rank` positive integers; a single one counts for every axis.

    Raises:
        ValueError: there are not one or `rank` of them, or one is not positive.
        TypeError: one is no integer.

    Example:
        >>> positive_sizes("strides", 2, 2)
        (2, 2)
    """
    sizes = integers(name, value, rank)
    if len(sizes) != rank:
        noun = "one integer" if rank == 1 else f"an integer or {rank} integers"
        raise ValueError(f"{name} must be {noun}. Received: {name}={value!r}")
    if any(v <= 0 for v in sizes):
        raise ValueError(f"{name} must be positive. Received: {name}={value!r}")
    if any(v >= 2**62 for v in sizes):
        raise ValueError(f"{name} is too large. Received: {name}={value!r}")
    return sizes


def _padding_error(value: Any, rank: int) -> ValueError:
    if rank == 1:
        forms = "'valid', 'same', 'causal' or (left, right)"
    else:
        forms = "'valid', 'same' or ((top, bottom), (left, right))"
    return ValueError(
        f"padding must be {forms} with integers of at least 0. Received: padding={value!r}"
    )


def explicit_padding(value: Any, rank: int) -> tuple[int, ...]:
    """Padding given as numbers, as integers of at least 0: before and after each of `rank` axes.

    Raises:
        ValueError: it has another form, or a number is negative or too large.
        TypeError: a number is no integer.

    Example:
        >>> explicit_padding(((1, 2), (3, 4)), 2), explicit_padding((1, 2), 1)
        ((1, 2, 3, 4), (1, 2))
    """
    try:
        pairs = [tuple(pair) for pair in value]
    except TypeError:
        if rank == 1:
            try:
                pairs = [tuple(value)]
            except TypeError:
                raise _padding_error(value, rank) from None
        else:
            raise _padding_error(value, rank) from None
    if len(pairs) != rank or any(len(pair) != 2 for pair in pairs):
        raise _padding_error(value, rank)
    flat = tuple(_integer("padding", v, value) for pair in pairs for v in pair)
    if any(v < 0 for v in flat) or any(v >= 2**62 for v in flat):
        raise _padding_error(value, rank)
    return flat
