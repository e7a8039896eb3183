"""Finds an engine by its name: the public functions of its arrays, and its adapter."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sepconv.engines.contract import Engine

__all__ = ["adapter", "load"]

_MODULES = {
    "jax": "sepconv.jax",
    "torch": "sepconv.torch",
    "tensorflow": "sepconv.tensorflow",
    "numpy": "sepconv.engines.numpy",
}

_ADAPTERS = {
    "jax": "sepconv.engines.jax.engine",
    "torch": "sepconv.engines.torch.engine",
    "tensorflow": "sepconv.engines.tensorflow.engine",
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
    return _import(_MODULES, name)


def adapter(name: str) -> Engine:
    """The adapter of an engine: functions that take a `ConvSpec`, for layers and the patch.

    Args:
        name: as for `load`.

    Example:
        >>> adapter("numpy").batch_norm is None
        True
    """
    found: Any = _import(_ADAPTERS, name)
    return found


def _import(modules: dict[str, str], name: str) -> ModuleType:
    try:
        return importlib.import_module(modules[name])
    except KeyError:
        raise ValueError(
            f"sepconv works with the Keras backends {sorted(modules)}. Received: {name!r}"
        ) from None
