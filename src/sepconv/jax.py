"""Depthwise and separable convolution of JAX arrays, fast on CPUs.

The functions work under every transformation of JAX's: `jit`, `grad` (to any order), `jvp`, `vmap`
over inputs and kernels, `scan`, `checkpoint`, and sharding over the batch. On a platform other than
the CPU they are compiled to JAX's own convolution.

Example:
    >>> import jax.numpy as jnp
    >>> import sepconv.jax
    >>> x = jnp.ones((1, 4, 4, 2))
    >>> y = sepconv.jax.depthwise_conv2d(x, jnp.ones((3, 3, 2, 1)), padding="same")
    >>> print(y[0, :, :, 0])
    [[4. 6. 6. 4.]
     [6. 9. 9. 6.]
     [6. 9. 9. 6.]
     [4. 6. 6. 4.]]
"""

from __future__ import annotations

from sepconv.engines.front import functions, fused_function, program_function
from sepconv.engines.jax import engine
from sepconv.engines.jax.memory import keep_memory

__all__ = [
    "depthwise_conv1d",
    "depthwise_conv2d",
    "fused_conv2d",
    "keep_memory",
    "run_program",
    "separable_conv1d",
    "separable_conv2d",
]

depthwise_conv2d, separable_conv2d, depthwise_conv1d, separable_conv1d = functions(engine)

fused_conv2d = fused_function(engine)

run_program = program_function(engine)
