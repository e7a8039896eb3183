"""The depthwise and the separable convolution of TensorFlow tensors."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from sepconv.engines.tensorflow.calls import Array, forward, runs_on_cpu
from sepconv.engines.tensorflow.composed import stock
from sepconv.fused import Operands
from sepconv.geometry import ConvSpec, activation_code

__all__ = ["as_array", "convolve"]


def convolve(
    x: Array,
    depthwise_kernel: Array,
    pointwise_kernel: Array | None,
    bias: Array | None,
    spec: ConvSpec,
    activation: str | None,
) -> Array:
    """See `sepconv.engines.front`."""
    if not runs_on_cpu(x):
        return stock(x, depthwise_kernel, pointwise_kernel, bias, spec, activation)
    operands = Operands(x, depthwise_kernel, None, pointwise_kernel, bias)
    return forward(operands, spec, activation=activation_code(activation))


def as_array(value: Any) -> Array:
    """`value` as a tensor whose rank is known.

    Raises:
        ValueError: the rank is unknown while a graph is traced.
    """
    # A tensor needs no conversion, whose way through TensorFlow's dispatch takes 3 us; a variable's
    # value is what its conversion ends in.
    if isinstance(value, tf.Tensor):
        tensor = value
    elif isinstance(value, tf.Variable):
        tensor = value.value()
    else:
        tensor = tf.convert_to_tensor(value)
    if tensor.shape.rank is None:
        raise ValueError(
            "sepconv needs to know an array's rank while a graph is traced; set it with "
            f"tf.ensure_shape. Received: {tensor}"
        )
    return tensor
