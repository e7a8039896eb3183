"""What the tests of several engines' files share."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from helpers import scripts

DISTRIBUTED = Path(__file__).parents[2] / "examples" / "distributed"


@pytest.fixture
def x64() -> Iterator[None]:
    """JAX with 64-bit types."""
    from helpers import jax_versions

    with jax_versions.x64():
        yield


@pytest.fixture
def quick_jax() -> Iterator[None]:
    """JAX compiles without most optimizations: compiling takes nearly all the time of many tests.

    `patch_jax` is undone afterwards.
    """
    import jax

    import sepconv

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    sepconv.unpatch_jax()


@pytest.fixture
def training() -> Iterator[ModuleType]:
    """The example that trains in two processes; it bounds their time and leaves none behind."""
    with scripts.importable(DISTRIBUTED):
        yield importlib.import_module("run")
