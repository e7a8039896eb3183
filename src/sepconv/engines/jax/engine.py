"""JAX's functions, as `sepconv.engines.contract` lists them."""

from __future__ import annotations

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
as_array = jnp.asarray


def is_traced() -> bool:
    """False: JAX runs the Python code that it traces."""
    return False
