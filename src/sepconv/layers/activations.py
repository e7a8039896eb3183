"""The activations of Keras that the kernels apply to their sums themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from sepconv.geometry import ACTIVATIONS

__all__ = ["kernel_activation"]


def kernel_activation(activation: Any, known: Mapping[str | None, int] = ACTIVATIONS) -> str | None:
    """The name under which the kernels apply one of Keras' activations, or None.

    Args:
        activation: a function of `keras.activations`.
        known: the names that may be returned: `ACTIVATIONS` for a convolution, `BLOCK_ACTIVATIONS`
            for a block.

    Example:
        >>> import keras
        >>> from sepconv.fused import BLOCK_ACTIVATIONS
        >>> swish = keras.activations.get("swish")
        >>> kernel_activation(swish, BLOCK_ACTIVATIONS), kernel_activation(swish)
        ('silu', None)
    """
    for name in ("relu", "relu6", "hard_silu", "silu"):
        if activation is getattr(keras.activations, name):
            return name if name in known else None
    return None
