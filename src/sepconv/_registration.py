"""Registers sepconv's layers with Keras as soon as both are imported, in either order.

Keras finds a file's layers in its registry, which `sepconv.layers` fills when it is imported. Where
Keras is not imported yet, that waits for it, since ``import sepconv`` must not import Keras.
"""

from __future__ import annotations

import importlib
import sys
import warnings

from sepconv._imports import when_imported

__all__ = ["register"]

_LAYERS = "sepconv.layers"


def register() -> None:
    """Registers the layers with Keras: now, or once Keras has been imported.

    It never raises, since a program that imports Keras may not use sepconv; errors become a
    warning.

    Example:
        >>> register()
    """
    when_imported("keras", _import_layers)


def _import_layers() -> None:
    # If it is loaded or being imported, that import registers the layers.
    if _LAYERS in sys.modules:
        return
    try:
        importlib.import_module(_LAYERS)
    # An old or broken Keras may raise anything; its import must not fail because of sepconv.
    except Exception as error:
        if type(error).__name__ == "_DeadlockError":  # another thread is importing the layers
            return
        warnings.warn(
            "sepconv's layers could not be registered with Keras, which will not load files that "
            f"have them: {type(error).__name__}: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
