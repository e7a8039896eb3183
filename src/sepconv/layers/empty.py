"""A batch without images, of which TensorFlow computes wrong convolutions.

On CPUs, its convolution gives such a batch the shape of its input, and its gradient fails. So the
batch is lent an image of zeros, which the result leaves out again. Where the number of images is
known at run time only, that adds a few operations to the graph, and no pass over memory. They
should stand around a convolution with its bias and activation: between them, they would keep
TensorFlow from computing all in one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from sepconv.layers.devices import runs_on_cpu

__all__ = ["is_empty", "lend_an_image"]


def is_empty(inputs: Any) -> bool | None:
    """Whether a batch has no images; None where that will be known at run time only.

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
    """`compute` of a batch that may have no images.

    Args:
        compute: a function of a batch whose result has as many images as its argument, and axes.
        inputs: a tensor of Keras' backend of the moment.

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
    # As few operations as can be, since each costs as much as a small convolution's arithmetic.
    others = [0] * (len(x.shape) - 1)
    shape = tf.shape(x)
    missing = tf.maximum(shape, [1, *others]) - shape
    lent = tf.pad(x, tf.stack([tf.zeros_like(missing), missing], 1))
    lent.set_shape(x.shape)
    y = compute(lent)
    # TensorFlow makes one operation of a padding that only a convolution reads, and that is wrong
    # in the same way. So how many images were lent is read off what was padded.
    first = tf.shape(lent) - shape
    result = tf.slice(y, first, tf.minimum(shape, [shape.dtype.max, *[-1] * len(others)]))
    result.set_shape(y.shape)
    return result
