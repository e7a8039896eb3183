"""TensorFlow's batch normalization in training: ``SepconvBatchNorm`` and its gradients.

The mean and the variance that come with the result are for the moving ones: they carry no gradient.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from sepconv.engines.tensorflow.calls import Array, operations, runs_on_cpu

__all__ = ["batch_norm"]


def batch_norm(
    x: Array, gamma: Array, beta: Array, *, axis: int, epsilon: float
) -> tuple[Array, Array, Array]:
    """Normalizes each channel of `x` over all other axes.

    Args:
        x: of any rank, of float32 or float64.
        gamma: [channels], of its dtype: the deviation of a channel of the result.
        beta: [channels], of its dtype: its mean.
        axis: the one of the channels, 0 or more.
        epsilon: added to the variance.

    Returns:
        The result, and the mean and variance of each channel of x.
    """
    if not runs_on_cpu(x):
        normal, _, mean, variance = _normal(x, axis, epsilon)
        y = normal * _along(gamma, x, axis) + _along(beta, x, axis)
        return y, tf.stop_gradient(mean), tf.stop_gradient(variance)
    return tuple(
        operations.sepconv_batch_norm(x, gamma, beta, tf.constant(epsilon, tf.float64), axis=axis)
    )


def _others(x: Array, axis: int) -> list[int]:
    return [i for i in range(len(x.shape)) if i != axis]


def _along(vector: Array, x: Array, axis: int) -> Array:
    """A number a channel, to be broadcast against x."""
    return tf.reshape(vector, [-1 if i == axis else 1 for i in range(len(x.shape))])


def _normal(x: Array, axis: int, epsilon: Any) -> tuple[Array, Array, Array, Array]:
    """Of x: itself without mean and deviation, the inverse deviation, mean and variance."""
    # tf.nn.moments has no second derivative: it takes the mean for constant in the variance.
    others = _others(x, axis)
    mean = tf.reduce_mean(x, others)
    centred = x - _along(mean, x, axis)
    variance = tf.reduce_mean(tf.square(centred), others)
    inverse = tf.math.rsqrt(variance + tf.cast(epsilon, x.dtype))
    return centred * _along(inverse, x, axis), inverse, mean, variance


def _composed_gradients(
    x: Array, gamma: Array, dy: Array, axis: int, epsilon: Any
) -> tuple[Array, Array, Array]:
    # Mean and variance are computed again, since they change with x.
    normal, inverse, *_ = _normal(x, axis, epsilon)
    others = _others(x, axis)
    dbeta, dgamma = tf.reduce_sum(dy, others), tf.reduce_sum(dy * normal, others)
    count = tf.cast(tf.size(x) / tf.size(gamma), x.dtype)
    dx = dy - _along(dbeta / count, x, axis) - normal * _along(dgamma / count, x, axis)
    return dx * _along(gamma * inverse, x, axis), dgamma, dbeta


@tf.RegisterGradient("SepconvBatchNorm")
def _gradient(operation: Any, dy: Array, *_: Any) -> list[Array | None]:
    x, gamma, _, epsilon = operation.inputs
    _, mean, variance = operation.outputs
    found = operations.sepconv_batch_norm_gradient(
        x, gamma, mean, variance, dy, epsilon, axis=operation.get_attr("axis")
    )
    return [*found, None]


@tf.RegisterGradient("SepconvBatchNormGradient")
def _gradient_of_gradient(operation: Any, *cotangents: Array) -> list[Array | None]:
    x, gamma, _, _, dy, epsilon = operation.inputs
    with tf.GradientTape() as tape:
        tape.watch([x, gamma, dy])
        found = _composed_gradients(x, gamma, dy, operation.get_attr("axis"), epsilon)
    dx, dgamma, ddy = tape.gradient(found, [x, gamma, dy], list(cotangents))
    return [dx, dgamma, None, None, ddy, None]
