"""The menu: for each kind of tensor the functions that draw what may be applied to it.

A kind is one of "vector", "series", "picture", "volume" (floats of 1 to 4 axes beside the batch's),
"numbers" (integers of one axis) and "words" (strings of one axis, on TensorFlow).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

#: Kinds of floats by their number of axes beside the batch's.
FLOATS = {1: "vector", 2: "series", 3: "picture", 4: "volume"}

MENU: dict[str, list[Item]] = defaultdict(list)


@dataclass(frozen=True)
class Item:
    """Something to apply to a tensor.

    Attributes:
        make: takes a `Draw` and the tensor's shape without its batch axis; returns a layer, or a
            function of a tensor. It raises `UnfitError` where it has nothing to offer.
        weight: how often it is drawn, relative to the others.
        first: whether it goes with channels first, too.
        plain: whether it makes a layer, which may be shared and put into models of all classes,
            rather than a function.
    """

    make: Any
    weight: float
    first: bool
    plain: bool


def on(*kinds, weight=1.0, first=False, plain=True, engines=()):
    """Puts a function on the menu for tensors of these kinds.

    Args:
        *kinds: see above; "floats" stands for all kinds of floats.
        weight: see `Item`.
        first: see `Item`.
        plain: see `Item`.
        engines: on which alone it works; all, if empty.
    """

    def add(make):
        from keras import backend

        if not engines or backend.backend() in engines:
            for kind in kinds:
                for name in FLOATS.values() if kind == "floats" else (kind,):
                    MENU[name].append(Item(make, weight, first, plain))
        return make

    return add
