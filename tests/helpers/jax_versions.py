"""What tests need of JAX whatever its version, and which tests need a newer one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import jax
import pytest


def x64() -> AbstractContextManager[Any]:
    """In which JAX has 64-bit types."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # before JAX 0.8

    return enable_x64(True)


def since(version: str, what: str) -> pytest.MarkDecorator:
    """Skips a test with the versions of JAX that came before something that it needs."""
    older = jax.__version_info__ < tuple(map(int, version.split(".")))
    return pytest.mark.skipif(older, reason=f"{what} is of JAX {version}")
