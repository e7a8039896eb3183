"""Registers sepconv's layers with Keras as soon as both are imported, in either order.

Keras finds a file's layers in its registry, which `sepconv.layers` fills when it is imported. Where
Keras is not imported yet, that waits for it, since ``import sepconv`` must not import Keras.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["register"]

_KERAS = "keras"
_LAYERS = "sepconv.layers"


def register() -> None:
    """Registers the layers with Keras: now, or once Keras has been imported.

    It never raises, since a program that imports Keras may not use sepconv; errors become a
    warning.

    Example:
        >>> register()
    """
    keras = sys.modules.get(_KERAS)
    if keras is None:
        if not any(isinstance(finder, _KerasFinder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _KerasFinder())
        return
    spec = getattr(keras, "__spec__", None)
    if not getattr(spec, "_initializing", False):
        _import_layers()
    elif type(spec) is ModuleSpec:
        # Keras is being imported, by this thread or another.
        spec.__class__ = _UnfinishedSpec


class _KerasFinder(MetaPathFinder):
    """Finds Keras by the other finders, and makes its loader register the layers at the end."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _KERAS:
            return None
        for finder in [finder for finder in sys.meta_path if finder is not self]:
            find = getattr(finder, "find_spec", None)
            spec = find(fullname, path, target) if find is not None else None
            if spec is not None:
                self._watch(spec.loader)
                return spec
        return None

    def _watch(self, loader: Loader | None) -> None:
        """Adds the registration to a loader, whose class stays the same: others may test for it."""
        # Another program's loader may lack the method or forbid the change.
        with contextlib.suppress(AttributeError):
            execute = loader.exec_module  # type: ignore[union-attr]
            loader.exec_module = self._watched(execute)  # type: ignore[union-attr, method-assign]

    def _watched(self, execute: Callable[[ModuleType], Any]) -> Callable[[ModuleType], Any]:
        @functools.wraps(execute)
        def exec_module(module: ModuleType) -> Any:
            result = execute(module)
            # A loader may load other modules too, or Keras again (`importlib.reload`).
            if module.__name__ == _KERAS and self in sys.meta_path:
                sys.meta_path.remove(self)
                _import_layers()
            return result

        return exec_module


class _UnfinishedSpec(ModuleSpec):
    """The spec of a module that is being imported; Python tells it when the import ends."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "_initializing" and not value:
            self.__class__ = ModuleSpec  # type: ignore[assignment]
            register()  # waits again, since a failed import may be repeated


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
