"""Ordinary 2-D convolutions that are depthwise or 1x1 ones: which of them we compute, and how.

In a kernel [height, width, C / groups, F] of Keras' `Conv2D` with as many groups as input channels,
output channel ``c * M + m`` is the m-th of input channel c: the depthwise kernel [height, width, C,
M] with other brackets. An image of one channel is the case of C = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from sepconv.arrays import DTYPES
from sepconv.engines import adapter
from sepconv.engines.front import convolve_2d
from sepconv.fused import strided
from sepconv.geometry import ConvSpec

__all__ = ["convolve", "layer_refusal", "plausible", "refusal"]

#: On an image of one channel, up to so many filters our kernels are ahead of the engine's own
#: convolution, also where the image needs no gradient; with more, its matrix product is.
_FILTERS = {"jax": 16, "torch": 8, "tensorflow": 16, "numpy": 16}

#: A 1x1 convolution pays from so many channels and filters on, whatever the image's size.
_CHANNELS = 8


def plausible(kernel_shape: Sequence[int]) -> bool:
    """Whether a convolution with a kernel of this shape, of four, may be ours; quick to say.

    Example:
        >>> plausible((3, 3, 1, 8)), plausible((3, 3, 4, 8))
        (True, False)
    """
    height, width, depth, _ = kernel_shape
    return depth == 1 or height == width == 1


def refusal(
    channels: int | None, kernel_shape: Sequence[int], dtype: str, data_format: str
) -> str | None:
    """Why we do not compute a convolution on Keras' backend of the moment; None where we do.

    Args:
        channels: of the input, as far as they are known.
        kernel_shape: (height, width, channels / groups, filters).
        dtype: the name of the one that input and kernel have.
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
        return "an ordinary convolution, neither a depthwise nor a 1x1 one"
    most = _FILTERS[keras.backend.backend()]
    if channels == 1 and filters > most:
        return f"{filters} filters on one channel, which are quicker as an ordinary convolution"
    return None if dtype in DTYPES else f"computes in {dtype}"


def _pointwise_refusal(channels: int, filters: int, dtype: str, data_format: str) -> str | None:
    backend = keras.backend.backend()
    if adapter(backend).pointwise is None or (
        backend == "torch" and data_format == "channels_first"
    ):
        return f"a 1x1 convolution, which {backend} computes as fast in {data_format}"
    if min(channels, filters) < _CHANNELS:
        return f"a 1x1 convolution with fewer than {_CHANNELS} channels or filters"
    return None if dtype in ("float32", "float64") else f"a 1x1 convolution in {dtype}"


def layer_refusal(layer: Any) -> str | None:
    """`refusal` for a `keras.layers.Conv2D`."""
    if not layer.built:
        return "not built yet, so the number of its channels is not known"
    shape = tuple(layer.kernel.shape)
    return refusal(shape[2] * layer.groups, shape, layer.compute_dtype, layer.data_format)


def convolve(inputs: Any, kernel: Any, spec: ConvSpec) -> Any:
    """Computes a convolution that `refusal` has nothing against, differentiably.

    Args:
        inputs: a tensor of four axes.
        kernel: a tensor of its dtype, of the shape that `refusal` takes.
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
