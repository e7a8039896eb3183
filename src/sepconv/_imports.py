"""Does something as soon as a module has been imported, now or later, without importing it."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Its classes are bases that nothing asks for, and it imports twenty modules of Python's.
    from importlib.abc import Loader

__all__ = ["when_imported"]

#: What to do when a module has been imported, by its name.
_actions: dict[str, Callable[[], None]] = {}


def when_imported(name: str, action: Callable[[], None]) -> None:
    """Calls `action` now, if a module is imported already, or once it has been.

    Args:
        name: the module's whole name.
        action: it must not raise, since a program that imports the module may not use sepconv. A
            module has one: where one waits already, the newer one takes its place.

    Example:
        >>> when_imported("sys", lambda: print("here"))
        here
    """
    _actions[name] = action
    module = sys.modules.get(name)
    if module is None:
        if not any(isinstance(f, _Finder) and f.name == name for f in sys.meta_path):
            sys.meta_path.insert(0, _Finder(name))
        return
    spec = getattr(module, "__spec__", None)
    if not getattr(spec, "_initializing", False):
        action()
    elif type(spec) is ModuleSpec:
        # It is being imported, by this thread or another.
        spec.__class__ = _UnfinishedSpec


class _Finder:
    """Finds a module by the other finders, and makes its loader call the action at the end."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        for finder in [finder for finder in sys.meta_path if finder is not self]:
            find = getattr(finder, "find_spec", None)
            spec = find(fullname, path, target) if find is not None else None
            if spec is not None:
                self._watch(spec.loader)
                return spec
        return None

    def _watch(self, loader: Loader | None) -> None:
        """Adds the action to a loader, whose class stays the same: others may test for it."""
        # Another program's loader may lack the method or forbid the change.
        with contextlib.suppress(AttributeError):
            execute = loader.exec_module  # type: ignore[union-attr]
            loader.exec_module = self._watched(execute)  # type: ignore[union-attr, method-assign]

    def _watched(self, execute: Callable[[ModuleType], Any]) -> Callable[[ModuleType], Any]:
        @functools.wraps(execute)
        def exec_module(module: ModuleType) -> Any:
            result = execute(module)
            # A loader may load other modules too, or this one again (`importlib.reload`).
            if module.__name__ == self.name and self in sys.meta_path:
                sys.meta_path.remove(self)
                _actions[self.name]()
            return result

        return exec_module


class _UnfinishedSpec(ModuleSpec):
    """The spec of a module that is being imported; Python tells it when the import ends."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "_initializing" and not value:
            self.__class__ = ModuleSpec  # type: ignore[assignment]
            # Waits again if the module is not there, since a failed import may be repeated.
            when_imported(self.name, _actions[self.name])
