"""Convolutions and windows of images, differentiable; depthwise and 1x1 ones by our kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from sepconv.engines import adapter
from sepconv.engines.front import convolve_2d
from sepconv.geometry import ConvSpec
from sepconv.layers import ordinary

__all__ = ["as_image", "convolve", "from_image", "greatest", "sums"]


def as_image(x: Any, spec: ConvSpec) -> Any:
    """An image with channels last, of one that may be a pixel high and have them first."""
    if len(x.shape) == 3:
        x = ops.expand_dims(x, 2 if spec.channels_first else 1)
    return ops.transpose(x, (0, 2, 3, 1)) if spec.channels_first else x


def from_image(y: Any, spec: ConvSpec, rank: int) -> Any:
    """An image with channels last in the layout that `as_image` was given."""
    if spec.channels_first:
        y = ops.transpose(y, (0, 3, 1, 2))
    return ops.squeeze(y, 2 if spec.channels_first else 1) if rank == 3 else y


def convolve(image: Any, kernel: Any, spec: ConvSpec, depthwise: bool) -> Any:
    """A depthwise or an ordinary convolution of an image with channels last.

    Args:
        image: [N, H, W, C].
        kernel: [kh, kw, C, M] of a depthwise one, [kh, kw, C, F] of an ordinary one.
        spec: strides, dilations and padding; where channels are does not matter.
        depthwise: which of the two it is.
    """
    spec = spec._replace(channels_first=0)
    if depthwise:
        engine = adapter(keras.backend.backend())
        return convolve_2d(engine, image, kernel, None, None, spec)
    image, spec = _padded(image, spec, kernel.shape[:2], 0.0)
    shape = tuple(kernel.shape)
    if not spec.same and not ordinary.refusal(image.shape[3], shape, "float32", "channels_last"):
        return ordinary.convolve(image, kernel, spec)
    return ops.conv(
        image,
        kernel,
        strides=(spec.stride_h, spec.stride_w),
        padding="same" if spec.same else "valid",
        data_format="channels_last",
        dilation_rate=(spec.dilation_h, spec.dilation_w),
    )


def _padded(
    image: Any, spec: ConvSpec, size: Sequence[int], outside: float
) -> tuple[Any, ConvSpec]:
    """An image with its padding, and the spec of what is left to do."""
    around = [(spec.pad_top, spec.pad_bottom), (spec.pad_left, spec.pad_right)]
    if spec.same:
        sizes = image.shape[1:3]
        if None in sizes:
            return image, spec
        for axis in range(2):
            reach = (size[axis] - 1) * spec[2 + axis] + 1
            stride, length = spec[axis], sizes[axis]
            total = max((-(-length // stride) - 1) * stride + reach - length, 0)
            around[axis] = total // 2, total - total // 2
    if any(map(any, around)):
        image = ops.pad(image, [(0, 0), *around, (0, 0)], constant_values=outside)
    stride_h, stride_w, dilation_h, dilation_w, *_ = spec
    return image, ConvSpec(stride_h, stride_w, dilation_h, dilation_w, 0, 0, 0, 0, 0, 0)


def sums(image: Any, window: Sequence[int], spec: ConvSpec) -> tuple[Any, Any]:
    """The sums over windows, and the pixels of the image in each: 1 where there is none."""
    ones = ops.ones((*window, image.shape[3], 1), dtype=image.dtype)
    one = ops.ones_like(image[:1, :, :, :1])
    counts = convolve(one, ops.ones((*window, 1, 1), dtype=image.dtype), spec, True)
    return convolve(image, ones, spec, True), ops.maximum(counts, 1.0)


def greatest(image: Any, window: Sequence[int], spec: ConvSpec, outside: float) -> Any:
    """The greatest pixel of windows without dilation; `outside` is what stands in the padding."""
    image, spec = _padded(image, spec._replace(channels_first=0), window, outside)
    return ops.max_pool(
        image,
        tuple(window),
        strides=(spec.stride_h, spec.stride_w),
        padding="same" if spec.same else "valid",
        data_format="channels_last",
    )
