"""What the tests of several engines' files share."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

DISTRIBUTED = Path(__file__).parents[2] / "examples" / "distributed"


@pytest.fixture
def x64() -> Iterator[None]:
    """JAX with 64-bit types."""
    from helpers import jax_versions

    with jax_versions.x64():
        yield


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example that trains in two processes; it bounds their time and leaves none behind."""
    monkeypatch.syspath_prepend(str(DISTRIBUTED))
    return importlib.import_module("run")
