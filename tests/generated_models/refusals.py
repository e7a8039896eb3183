"""Errors that are promised: a function may raise them about models that have a certain feature."""

from __future__ import annotations

import re
from typing import NamedTuple


class Refusal(NamedTuple):
    """A documented error.

    Attributes:
        functions: which raise it.
        kind: its class.
        pattern: of its message.
        feature: what the model must have for it; see `Draw.features`.
        reason: why it is right.
    """

    functions: tuple[str, ...]
    kind: type[Exception]
    pattern: str
    feature: str
    reason: str


REFUSALS = (
    Refusal(
        ("optimize",),
        TypeError,
        "model must be a Sequential or Functional Keras model",
        "subclassed",
        "the layers of a call of one's own cannot be seen",
    ),
    Refusal(
        ("factorize",),
        ValueError,
        "A model must be Sequential or Functional, without a constructor of its own",
        "subclassed",
        "a constructor of one's own makes the layers that would be replaced",
    ),
    Refusal(
        ("accelerate", "to_stock", "factorize"),
        ValueError,
        "cannot be copied, which takes a config",
        "no config",
        "a layer that has no get_config cannot be made anew",
    ),
)


def refusal_of(function, error, features):
    """The documented reason for an error, or None."""
    for refusal in REFUSALS:
        if (
            function in refusal.functions
            and isinstance(error, refusal.kind)
            and refusal.feature in features
            and re.search(refusal.pattern, str(error))
        ):
            return refusal.reason
    return None
