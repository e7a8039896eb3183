"""TensorFlow's batch normalization in training: ``SepconvBatchNorm`` and its gradients.

The mean and the variance that come with the result are for the moving ones: they carry no gradient.

Those of half types are ``SepconvHalfBatchNorm`` and its gradients: numbers of channels are float32,
everything is computed in float32, and the result and its derivatives in x are rounded once.
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
        x: of any rank, of float32, float64 or a half type.
        gamma: [channels], of its dtype, or float32 for a half type: the deviation of a channel of
            the result.
        beta: [channels], of the dtype of gamma: its mean.
        axis: the one of the channels, 0 or more.
        epsilon: added to the variance.

    Returns:
        The result, and the mean and variance of each channel of x.
    """
    if not runs_on_cpu(x):
        normal, _, mean, variance = _normal(x, axis, epsilon)
        y = normal * _along(gamma, x, axis) + _along(beta, x, axis)
        return tf.cast(y, x.dtype), tf.stop_gradient(mean), tf.stop_gradient(variance)
    compute = operations.sepconv_half_batch_norm if _is_half(x) else operations.sepconv_batch_norm
    return tuple(compute(x, gamma, beta, tf.constant(epsilon, tf.float64), axis=axis))


def _is_half(x: Array) -> bool:
    return x.dtype in (tf.bfloat16, tf.float16)


def _real(x: Array) -> Array:
    """An array in the dtype that it is computed in."""
    return tf.cast(x, tf.float32) if _is_half(x) else x


def _others(x: Array, axis: int) -> list[int]:
    return [i for i in range(len(x.shape)) if i != axis]


def _along(vector: Array, x: Array, axis: int) -> Array:
    """A number a channel, to be broadcast against x."""
    return tf.reshape(vector, [-1 if i == axis else 1 for i in range(len(x.shape))])


def _normal(x: Array, axis: int, epsilon: Any) -> tuple[Array, Array, Array, Array]:
    """Of x: itself without mean and deviation, the inverse deviation, mean and variance."""
    # tf.nn.moments has no second derivative: it takes the mean for constant in the variance.
    others, x = _others(x, axis), _real(x)
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
    others, dy = _others(x, axis), _real(dy)
    dbeta, dgamma = tf.reduce_sum(dy, others), tf.reduce_sum(dy * normal, others)
    count = tf.cast(tf.size(x) / tf.size(gamma), dy.dtype)
    dx = dy - _along(dbeta / count, x, axis) - normal * _along(dgamma / count, x, axis)
    return tf.cast(dx * _along(gamma * inverse, x, axis), x.dtype), dgamma, dbeta


@tf.RegisterGradient("SepconvBatchNorm")
@tf.RegisterGradient("SepconvHalfBatchNorm")
def _gradient(operation: Any, dy: Array, *_: Any) -> list[Array | None]:
    x, gamma, _, epsilon = operation.inputs
    _, mean, variance = operation.outputs
    compute = (
        operations.sepconv_half_batch_norm_gradient
        if _is_half(x)
        else operations.sepconv_batch_norm_gradient
    )
    found = compute(x, gamma, mean, variance, dy, epsilon, axis=operation.get_attr("axis"))
    return [*found, None]


@tf.RegisterGradient("SepconvBatchNormGradient")
@tf.RegisterGradient("SepconvHalfBatchNormGradient")
def _gradient_of_gradient(operation: Any, *cotangents: Array) -> list[Array | None]:
    x, gamma, _, _, dy, epsilon = operation.inputs
    with tf.GradientTape() as tape:
        tape.watch([x, gamma, dy])
        found = _composed_gradients(x, gamma, dy, operation.get_attr("axis"), epsilon)
    dx, dgamma, ddy = tape.gradient(found, [x, gamma, dy], list(cotangents))
    return [dx, dgamma, None, None, ddy, None]
