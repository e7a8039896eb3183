"""The one table: which function lowers which class. Only the exact class counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sepconv.models.lowering import (
    activations,
    convolutions,
    merging,
    normalizations,
    operations,
    pooling,
    programs,
    reshaping,
)
from sepconv.models.lowering.call import Call

__all__ = ["find", "is_operation", "makes_floats", "moves"]

#: A function that writes the steps of a call, and gives the numbers of what it returns.
Write = Callable[[Call], Any]

_TABLE: dict[type, Write] = {
    **convolutions.LAYERS,
    **activations.LAYERS,
    **normalizations.LAYERS,
    **pooling.LAYERS,
    **merging.LAYERS,
    **reshaping.LAYERS,
    **programs.LAYERS,
    **operations.OPERATIONS,
}

_MOVES = {*reshaping.LAYERS, *normalizations.NOTHING, *operations.MOVES}


def find(operation: Any) -> Write | None:
    """The function for a layer or operation; None where its class is not known.

    A class derived from a known one may compute something else, so it is not known.
    """
    return _TABLE.get(type(operation))


def moves(operation: Any) -> bool:
    """Whether it gives elements of its input and zeros, so that integers stay integers."""
    return type(operation) in _MOVES


def is_operation(operation: Any) -> bool:
    """Whether it is no layer but an operation of `keras.ops`, which is exact about dtypes."""
    return type(operation) in operations.OPERATIONS


def makes_floats(operation: Any) -> bool:
    """Whether a layer computes with floats also where its input has integers."""
    known = (*normalizations.RESCALING, *convolutions.LAYERS, *programs.LAYERS)
    return type(operation) in known
