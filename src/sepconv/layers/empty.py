"""Convolutions of a batch without images, which TensorFlow computes wrongly.

On CPUs, TensorFlow's convolution gives such a batch the shape of its input, and its gradient fails.
So an image of zeros is added to the batch, and left out of the result. Where the number of images
is known at run time only, that adds a few operations to the graph, and no pass over memory. They
should stand around a convolution with its bias and activation: between these, they would keep
TensorFlow from fusing them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from sepconv.layers.devices import runs_on_cpu

__all__ = ["is_empty", "lend_an_image"]


def is_empty(inputs: Any) -> bool | None:
    """Whether a batch has no images; None where that is known at run time only.

    Example:
        >>> is_empty(keras.ops.zeros((0, 8, 8, 3))), is_empty(keras.ops.zeros((2, 8, 8, 3)))
        (True, False)
    """
    try:
        images = inputs.shape[0]
    except (AttributeError, IndexError, ValueError):  # no array, or TensorFlow knows no rank
        return False
    return None if images is None else images == 0


def lend_an_image(compute: Callable[[Any], Any], inputs: Any) -> Any:
    """The result of `compute` for a batch that may have no images.

    Args:
        compute: a function of a batch. Its result has as many images and axes as its argument.
        inputs: a tensor of Keras' current backend.

    Returns:
        The result, with as many images as `inputs`.

    Example:
        >>> tuple(lend_an_image(lambda x: x[..., :2], keras.ops.zeros((0, 8, 8, 3))).shape)
        (0, 8, 8, 2)
    """
    if keras.backend.backend() != "tensorflow" or isinstance(inputs, keras.KerasTensor):
        return compute(inputs)
    import tensorflow as tf

    x = tf.convert_to_tensor(inputs)
    if not runs_on_cpu(x):
        return compute(inputs)
    if x.shape[0] == 0:
        image = tf.zeros(tf.concat([[1], tf.shape(x)[1:]], 0), x.dtype)
        return compute(tf.concat([x, image], 0))[:0]
    # Few operations, since each takes as long as the arithmetic of a small convolution.
    others = [0] * (len(x.shape) - 1)
    shape = tf.shape(x)
    missing = tf.maximum(shape, [1, *others]) - shape
    lent = tf.pad(x, tf.stack([tf.zeros_like(missing), missing], 1))
    lent.set_shape(x.shape)
    y = compute(lent)
    # TensorFlow fuses a padding that only a convolution reads with the convolution, which then is
    # wrong in the same way. So the number of added images is read off the padded tensor, as a
    # second use.
    first = tf.shape(lent) - shape
    result = tf.slice(y, first, tf.minimum(shape, [shape.dtype.max, *[-1] * len(others)]))
    result.set_shape(y.shape)
    return result
