"""Finds the engine: which of ``sepconv.jax``, ``.torch``, ``.tensorflow`` or NumPy's to use."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["load"]

_MODULES = {
    "jax": "sepconv.jax",
    "torch": "sepconv.torch",
    "tensorflow": "sepconv.tensorflow",
    "numpy": "sepconv.engines.numpy",
}


def load(name: str) -> ModuleType:
    """The module with `depthwise_conv2d` and its kin for the arrays of one engine.

    Args:
        name: ``"jax"``, ``"torch"``, ``"tensorflow"`` or ``"numpy"``, as Keras names its backends.

    Raises:
        ValueError: the engine is another one.

    Example:
        >>> load("numpy").depthwise_conv2d.__name__
        'depthwise_conv2d'
    """
    try:
        return importlib.import_module(_MODULES[name])
    except KeyError:
        raise ValueError(
            f"sepconv works with the Keras backends {sorted(_MODULES)}. Received: {name!r}"
        ) from None
