"""Depthwise and separable convolution of TensorFlow tensors.

The functions are those of `sepconv`, on ``tf.Tensor`` (or what ``tf.convert_to_tensor`` takes).
They work eagerly and in ``tf.function``, with sizes of batch, height and width that are unknown
while tracing, and have derivatives of every order. A SavedModel that uses them loads in a process
that has imported this module. Where a function is compiled by XLA (``jit_compile=True``), or runs
on another device than a CPU, TensorFlow's own operations compute the same; a function that was
traced without XLA cannot be called from one that XLA compiles. ``tf.vectorized_map`` runs the
operations one element after another.

Example:
    >>> import tensorflow as tf
    >>> x, kernel = tf.ones((1, 3, 3, 1)), tf.ones((2, 2, 1, 1))
    >>> with tf.GradientTape() as tape:
    ...     tape.watch(kernel)
    ...     y = depthwise_conv2d(x, kernel)
    >>> tape.gradient(y, kernel)[..., 0, 0].numpy()
    array([[4., 4.],
           [4., 4.]], dtype=float32)
"""

from __future__ import annotations

from sepconv.engines.front import functions, fused_function, program_function
from sepconv.engines.tensorflow import engine

__all__ = [
    "depthwise_conv1d",
    "depthwise_conv2d",
    "fused_conv2d",
    "run_program",
    "separable_conv1d",
    "separable_conv2d",
]

depthwise_conv2d, separable_conv2d, depthwise_conv1d, separable_conv1d = functions(engine)

fused_conv2d = fused_function(engine)

run_program = program_function(engine)
