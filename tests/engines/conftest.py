"""What the tests of several engines' files share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def x64() -> Iterator[None]:
    """JAX with 64-bit types."""
    import jax

    with jax.enable_x64(True):
        yield
