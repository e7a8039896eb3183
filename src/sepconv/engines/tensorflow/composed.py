"""TensorFlow's own operations in the place of ours: for derivatives, other devices and XLA."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from sepconv.engines.tensorflow.calls import Array
from sepconv.fused import is_product
from sepconv.geometry import ACTIVATIONS, ConvSpec, activation_code

__all__ = ["ordinary", "stock"]


def stock(
    x: Array,
    depthwise_kernel: Array,
    pointwise_kernel: Array | None,
    bias: Array | None,
    spec: ConvSpec,
    activation: str | None,
) -> Array:
    """`convolve` in TensorFlow's own operations, for other devices and for XLA.

    TensorFlow's depthwise convolution has neither unequal strides nor strides with dilation; where
    such are asked for, the result at stride 1 is computed and every so many of it kept.
    """
    if spec.channels_first:
        x = tf.transpose(x, [0, 2, 3, 1])
    strides, dilations = spec[0:2], spec[2:4]
    pads = [spec[5:7], spec[7:9]]
    if spec.same:
        pads = [
            _same_padding(_size(x, i + 1), _size(depthwise_kernel, i), strides[i], dilations[i])
            for i in range(2)
        ]
    # Some of TensorFlow's operations give a batch of none the wrong shape: lend it an image.
    empty = x.shape[0] == 0
    x = tf.pad(x, [(0, int(empty)), *pads, (0, 0)])
    direct = strides[0] == strides[1] and dilations == (1, 1)
    step = strides[0] if direct else 1
    y = tf.nn.depthwise_conv2d(
        x, depthwise_kernel, [1, step, step, 1], "VALID", dilations=list(dilations)
    )
    if not direct:
        y = y[:, :: strides[0], :: strides[1]]
    if pointwise_kernel is not None:
        y = tf.nn.conv2d(y, pointwise_kernel, 1, "VALID")
    if empty:
        y = y[:0]
    if bias is not None:
        y = tf.nn.bias_add(y, bias)
    code = activation_code(activation)
    if code == ACTIVATIONS["relu"]:
        y = tf.nn.relu(y)
    elif code == ACTIVATIONS["relu6"]:
        y = tf.nn.relu6(y)
    return tf.transpose(y, [0, 3, 1, 2]) if spec.channels_first else y


def ordinary(x: Array, kernel: Array, spec: ConvSpec) -> Array:
    """An ordinary convolution by a kernel [kh, kw, C, F], channels last whatever `spec` says.

    It is a product with patches: TensorFlow's own has no gradient with dilation on a CPU.
    """
    height, width, channels, filters = kernel.shape
    if height is None or width is None:
        # Nothing but a 1x1 convolution may have a size that is known only at run time.
        ones = tf.debugging.assert_equal(tf.shape(kernel)[:2], 1, "The kernel's size is not known.")
        with tf.control_dependencies([] if ones is None else [ones]):
            kernel, height, width = tf.identity(kernel), 1, 1
    if is_product((height, width), spec):
        return tf.tensordot(x, kernel[0, 0], 1)
    strides, dilations = spec[0:2], spec[2:4]
    pads = [spec[5:7], spec[7:9]]
    if spec.same:
        pads = [
            _same_padding(_size(x, i + 1), (height, width)[i], strides[i], dilations[i])
            for i in range(2)
        ]
    x = tf.pad(x, [(0, 0), *pads, (0, 0)])

    def seen(tap: int, taps: int, axis: int) -> slice:
        """What one tap sees along an axis."""
        after = (taps - 1 - tap) * dilations[axis]
        return slice(tap * dilations[axis], -after if after else None, strides[axis])

    patches = [
        x[:, seen(i, height, 0), seen(j, width, 1)] for i in range(height) for j in range(width)
    ]
    rows = -1 if channels is None else height * width * channels
    matrix = tf.reshape(kernel, [rows, tf.shape(kernel)[3] if filters is None else filters])
    return tf.tensordot(tf.concat(patches, -1), matrix, 1)


def _size(array: Array, axis: int) -> Any:
    """A size as an integer where it is known while tracing, else as a tensor."""
    size = array.shape[axis]
    return tf.shape(array)[axis] if size is None else size


def _same_padding(size: Any, kernel: Any, stride: int, dilation: int) -> tuple[Any, Any]:
    """What ``native/geometry.cc`` computes, for sizes that may be known only at run time."""
    total = (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size
    total = tf.maximum(total, 0) if tf.is_tensor(total) else max(total, 0)
    return total // 2, total - total // 2
