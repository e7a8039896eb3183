"""Which of Keras' `Conv2D` our kernels compute (depthwise and 1x1 convolutions), and how.

A depthwise convolution has as many groups as input channels C. In its kernel [height, width, C /
groups, F], output channel ``c * M + m`` is the m-th of input channel c, so the kernel is a
depthwise kernel [height, width, C, M] in another shape. A convolution of an image of one channel is
the case C = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from sepconv.arrays import DTYPES
from sepconv.engines import adapter
from sepconv.engines.front import convolve_2d
from sepconv.engines.thresholds import MOST_FILTERS, ORDINARY, few_channels
from sepconv.fused import strided
from sepconv.geometry import ConvSpec

__all__ = ["convolve", "layer_refusal", "plausible", "refusal"]


def plausible(kernel_shape: Sequence[int]) -> bool:
    """Whether a convolution with a kernel of this shape may be ours: a quick test before `refusal`.

    Example:
        >>> plausible((3, 3, 1, 8)), plausible((3, 3, 4, 8))
        (True, False)
    """
    height, width, depth, _ = kernel_shape
    return depth == 1 or height == width == 1


def refusal(
    channels: int | None, kernel_shape: Sequence[int], dtype: str, data_format: str
) -> str | None:
    """Why our kernels do not compute a convolution on Keras' current backend; None where they do.

    Args:
        channels: the number of channels of the input, or None where it is not known.
        kernel_shape: (height, width, channels / groups, filters).
        dtype: the name of the dtype of input and kernel.
        data_format: ``"channels_last"`` or ``"channels_first"``.

    Example:
        >>> refusal(4, (3, 3, 1, 8), "float32", "channels_last")
        >>> refusal(4, (3, 3, 4, 8), "float32", "channels_last")
        'an ordinary convolution, neither a depthwise nor a 1x1 one'
    """
    height, width, depth, filters = kernel_shape
    if channels is None:
        return "the number of its channels is not known"
    if height == width == 1 and depth == channels > 1:
        return _pointwise_refusal(depth, filters, dtype, data_format)
    if depth != 1 or filters % channels:
        return ORDINARY
    if channels == 1 and filters > MOST_FILTERS[keras.backend.backend()]:
        return f"{filters} filters on one channel, which are quicker as an ordinary convolution"
    return None if dtype in DTYPES else f"computes in {dtype}"


def _pointwise_refusal(channels: int, filters: int, dtype: str, data_format: str) -> str | None:
    backend = keras.backend.backend()
    if adapter(backend).pointwise is None or (
        backend == "torch" and data_format == "channels_first"
    ):
        return f"a 1x1 convolution, which {backend} computes as fast in {data_format}"
    few = few_channels(channels, filters)
    if few is None and dtype not in DTYPES:
        return f"computes in {dtype}"
    return few


def layer_refusal(layer: Any) -> str | None:
    """`refusal` for a `keras.layers.Conv2D`."""
    if not layer.built:
        return "not built yet, so the number of its channels is not known"
    shape = tuple(layer.kernel.shape)
    return refusal(shape[2] * layer.groups, shape, layer.compute_dtype, layer.data_format)


def convolve(inputs: Any, kernel: Any, spec: ConvSpec) -> Any:
    """Computes a convolution for which `refusal` is None, differentiably.

    Args:
        inputs: a tensor of four axes.
        kernel: a tensor of the same dtype, in the shape that `refusal` takes.
        spec: strides, padding, dilation_rate and data_format.
    """
    engine = adapter(keras.backend.backend())
    channels = inputs.shape[spec.channel_axis]
    height, width, depth, filters = kernel.shape
    if depth == channels > 1:
        assert engine.pointwise is not None  # or it would have been refused
        inputs = strided(inputs, (spec.stride_h, spec.stride_w), spec)
        return engine.pointwise(inputs, kernel, data_format=spec.data_format)
    if channels > 1:
        kernel = keras.ops.reshape(kernel, (height, width, channels, filters // channels))
    return convolve_2d(engine, inputs, kernel, None, None, spec)
