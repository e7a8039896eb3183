"""Reports every call of some layers while a model computes."""

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
    """A context in which ``seen(layer, given, output)`` is called for each call of the layers.

    A layer in a nested model or wrapper is computed by its `call`, too. Engines that trace compute
    in a first call only.

    Args:
        layers: the layers to watch; left as they were.
        seen: takes the layer, all its arguments, named ones last, and its output.

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
            # Without Keras' __setattr__, which tracks values; the class' own `call` stays
            # underneath.
            object.__setattr__(layer, "call", watch(layer, layer.call))
        yield
    finally:
        for layer, own in before:
            if own is not None:
                object.__setattr__(layer, "call", own)
            else:
                vars(layer).pop("call", None)
