"""JAX's functions, as `sepconv.engines.contract` lists them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from sepconv.engines.jax.batch_norm import batch_norm
from sepconv.engines.jax.block import convolve, fuse
from sepconv.engines.jax.pointwise import pointwise
from sepconv.engines.jax.program import file_bytes, run_program

__all__ = [
    "as_array",
    "batch_norm",
    "convolve",
    "file_bytes",
    "fuse",
    "is_traced",
    "name",
    "pointwise",
    "run_program",
]

name = "JAX"


def as_array(value: Any) -> jax.Array:
    """`value` as an array of JAX that is not weakly typed."""
    # Such an array needs no conversion, which takes JAX 8 us.
    if isinstance(value, jax.Array) and not value.weak_type:
        return value
    return jnp.asarray(value)


def is_traced() -> bool:
    """False: JAX runs the Python code that it traces."""
    return False
