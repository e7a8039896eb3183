"""Finds the engine: which of ``sepconv.jax``, ``.torch``, ``.tensorflow`` or NumPy's to use."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__ = ["load", "load_batch_norm", "load_pointwise"]

_MODULES = {
    "jax": "sepconv.jax",
    "torch": "sepconv.torch",
    "tensorflow": "sepconv.tensorflow",
    "numpy": "sepconv.engines.numpy",
}

#: Where a 1x1 convolution of ours is ahead of the engine's own.
_POINTWISE = {
    "jax": "sepconv.engines.jax.pointwise",
    "torch": "sepconv.engines.torch.pointwise",
}

#: Where batch normalization trains.
_BATCH_NORM = {
    "jax": "sepconv.engines.jax.batch_norm",
    "torch": "sepconv.engines.torch.batch_norm",
    "tensorflow": "sepconv.engines.tensorflow.batch_norm",
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


def load_pointwise(name: str) -> Callable[..., Any] | None:
    """``pointwise(x, kernel, *, data_format)`` for the arrays of one engine; None for no need.

    Args:
        name: as for `load`.

    Example:
        >>> load_pointwise("tensorflow") is None
        True
    """
    return importlib.import_module(_POINTWISE[name]).pointwise if name in _POINTWISE else None


def load_batch_norm(name: str) -> Callable[..., Any] | None:
    """``batch_norm(x, gamma, beta, *, axis, epsilon)`` for the arrays of one engine, or None.

    It returns y, the mean and the variance of each channel. NumPy, which does not train, has none.

    Args:
        name: as for `load`.

    Example:
        >>> load_batch_norm("numpy") is None
        True
    """
    return importlib.import_module(_BATCH_NORM[name]).batch_norm if name in _BATCH_NORM else None
