"""Tells of every call of some layers while a model computes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["watched"]


@contextmanager
def watched(
    layers: Iterable[Any], seen: Callable[[Any, tuple[Any, ...], Any], None]
) -> Iterator[None]:
    """Within it, ``seen(layer, given, output)`` is told of each call of the layers.

    Wherever a layer is, in nested models or wrappers, its `call` is what computes it. Engines that
    trace compute in a first call alone.

    Args:
        layers: whose calls to tell of; left as they were.
        seen: takes the layer, all that it was called with, named arguments last, and its output.

    Example:
        >>> import keras
        >>> layer = keras.layers.Dense(3)
        >>> with watched([layer], lambda layer, given, output: print(output.shape[-1])):
        ...     result = layer(keras.ops.ones((1, 2)))
        3
    """

    def watch(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def told(*args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            seen(layer, (*args, *kwargs.values()), output)
            return output

        return told

    before = [(layer, vars(layer).get("call")) for layer in layers]
    try:
        for layer, _ in before:
            # Past Keras' __setattr__, which tracks what it is given; the class' own is below it.
            object.__setattr__(layer, "call", watch(layer, layer.call))
        yield
    finally:
        for layer, own in before:
            if own is not None:
                object.__setattr__(layer, "call", own)
            else:
                vars(layer).pop("call", None)
