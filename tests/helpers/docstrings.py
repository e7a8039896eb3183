"""The examples in docstrings: which modules have some, and what each needs to run.

The whole package is looked through, so no module's examples are forgotten.
"""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import sepconv

_PACKAGE = Path(sepconv.__file__).parent
_ENGINES = ("jax", "torch", "tensorflow")
_KERAS = ("layers", "models", "explain", "quantization")


#: Modules whose examples are those of other modules' functions, and run there.
_WRITES_EXAMPLES = ("engines/documents.py",)

#: Modules for one engine that have not its name.
_OF_ONE_ENGINE = {"jaxpr": "jax", "modules": "torch", "named": "torch"}


def _needs(first: str, last: str) -> str | None:
    """What a module needs; `first` is its folder, or its folder within `engines`."""
    if first in _ENGINES:
        return first
    if first == "modules":
        return "torch"
    return _OF_ONE_ENGINE.get(last, "keras" if first in _KERAS else None)


def _modules() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for path in sorted(_PACKAGE.rglob("*.py")):
        within_package = path.relative_to(_PACKAGE)
        if within_package.as_posix() in _WRITES_EXAMPLES:
            continue
        if ">>>" in path.read_text(encoding="utf-8"):
            parts = within_package.with_suffix("").parts
            name = ".".join(part for part in ("sepconv", *parts) if part != "__init__")
            within = parts[0] == "engines" and len(parts) > 2
            found[name] = _needs(parts[1] if within else parts[0], parts[-1])
    return found


#: Modules with examples -> the engine that they are for; "keras" for any; None where none is used.
MODULES = _modules()


def run(name: str) -> None:
    """Runs the examples of a module."""
    module = importlib.import_module(name)
    result = doctest.testmod(module)
    assert result.failed == 0, name
    if not result.attempted:
        # Classes that say they are of the package are run as the package's.
        package = name.rpartition(".")[0]
        moved = [each for each in vars(module).values() if isinstance(each, type)]
        assert package in MODULES, name
        assert any(each.__module__ == package and each.__doc__ for each in moved), name
