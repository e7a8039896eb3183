"""Programs of plain JAX and single layers of flax that people have reported as slow, written anew.

`jax_networks.py` times them. Each is named by what it computes, with the report that it is of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

__all__ = ["WAYS", "Program", "dilated", "layer", "stack"]


class Program(NamedTuple):
    """A function of arrays, to be compiled and timed.

    Attributes:
        function: it, in JAX's and flax's own functions.
        arrays: what it is called with.
        called: None, or the same function of the same arrays, written with our functions.
    """

    function: Callable[..., Any]
    arrays: Sequence[Any]
    called: Callable[..., Any] | None = None


def layer(channels: int = 256, size: int = 124) -> Program:
    """One depthwise layer of flax on one image.

    Source: https://github.com/jax-ml/jax/issues/23713, and google/flax#4207.
    """
    conv = nnx.Conv(
        channels, channels, (3, 3), padding=1, feature_group_count=channels, rngs=nnx.Rngs(0)
    )
    graph, state = nnx.split(conv)
    x = jnp.asarray(np.random.default_rng(0).random((1, size, size, channels)), "float32")
    return Program(lambda state, x: nnx.merge(graph, state)(x), (state, x))


def stack(batch: int = 4, channels: int = 512, steps: int = 1024, layers: int = 12) -> Program:
    """The gradient of depthwise layers in one dimension, channels first.

    Source: https://github.com/jax-ml/jax/issues/13800.
    """
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((batch, channels, steps)), "float32")
    kernels = [jnp.asarray(rng.standard_normal((1, channels, 5)), "float32") / 2] * layers

    def loss(kernels: Any, x: Any) -> Any:
        for kernel in kernels:
            x = lax.conv_general_dilated(
                x,
                kernel,
                (1,),
                "SAME",
                dimension_numbers=("NCW", "IOW", "NCW"),
                feature_group_count=channels,
            )
        return jnp.abs(x).mean()

    return Program(jax.grad(loss), (kernels, x))


#: How `dilated` says that each channel has a kernel of its own.
WAYS = ("groups", "vmap", "slices")


def dilated(
    way: str, batch: int = 8, channels: int = 64, steps: int = 1024, dilation: int = 8
) -> Program:
    """The gradient of a dilated depthwise convolution in one dimension.

    Source: https://github.com/jax-ml/jax/issues/26266.

    Args:
        way: ``"groups"``: as many as channels; ``"vmap"``: over the channels of both arrays;
            ``"slices"``: a convolution a channel, and their results side by side.
        batch: of the signals.
        channels: of each.
        steps: the length of each.
        dilation: of the kernel, whose size is 9.
    """
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((batch, steps, channels)), "float32")
    kernel = jnp.asarray(rng.standard_normal((9, 1, channels)), "float32")

    def convolve(x: Any, kernel: Any, groups: int = 1) -> Any:
        return lax.conv_general_dilated(
            x,
            kernel,
            (1,),
            "SAME",
            rhs_dilation=(dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=groups,
        )

    def result(x: Any, kernel: Any) -> Any:
        if way == "groups":
            return convolve(x, kernel, channels)
        if way == "vmap":
            one = jax.vmap(lambda x, k: convolve(x[..., None], k[..., None])[..., 0], 2, 2)
            return one(x, kernel)
        each = [convolve(x[..., i : i + 1], kernel[..., i : i + 1]) for i in range(channels)]
        return jnp.concatenate(each, -1)

    return Program(jax.grad(lambda *arrays: (result(*arrays) ** 2).mean(), (0, 1)), (x, kernel))
