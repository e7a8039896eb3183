"""The 1x1 convolution of NumPy arrays, forward and backward."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from sepconv import _native
from sepconv._types import PointwiseGrads
from sepconv.arrays import as_array, dtype_code, empty, output_array
from sepconv.geometry import (
    ConvSpec,
    activation_code,
    check_bias,
    check_pointwise_kernel,
    check_rank,
    conv_spec,
)

__all__ = ["pointwise_conv2d", "pointwise_conv2d_grad"]


@lru_cache(maxsize=4096)
def _sizes(
    x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], spec: ConvSpec
) -> tuple[tuple[int, int, int, int, bool], tuple[int, ...]]:
    """The sizes for the kernels, and the output's shape."""
    first = bool(spec.channels_first)
    check_rank("x", x_shape, 4, "(batch, height, width, channels) in the order of data_format")
    batch, channels = x_shape[0], x_shape[1 if first else 3]
    height, width = x_shape[2:] if first else x_shape[1:3]
    if min(channels, height, width) < 1:
        raise ValueError(
            "The input's height, width and channels must be positive. "
            f"Received: x.shape={x_shape} with data_format={spec.data_format!r}"
        )
    filters = check_pointwise_kernel(kernel_shape, channels)
    shape = (batch, filters, height, width) if first else (batch, height, width, filters)
    return (batch, height * width, channels, filters, first), shape


def pointwise_conv2d(
    x: np.ndarray,
    pointwise_kernel: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    data_format: str = "channels_last",
    activation: str | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Mixes the channels of every pixel: a 1x1 convolution, or a product with a matrix.

    Args:
        x: (batch, height, width, C), or (batch, C, height, width) where `data_format` is
            ``"channels_first"``; float32, float64, float16 or bfloat16.
        pointwise_kernel: (1, 1, C, F).
        bias: None, or (F,).
        data_format: ``"channels_last"`` or ``"channels_first"``.
        activation: None, ``"relu"`` or ``"relu6"``, applied before the result is stored.
        out: an array for the result, C-contiguous and apart from the inputs.

    Returns:
        (batch, height, width, F), or its channels_first form, of the dtype of `x`.

    Raises:
        ValueError: an argument is out of range, or shapes do not fit.
        TypeError: a dtype is none of these, or dtypes differ.

    Example:
        >>> pointwise_conv2d(np.ones((1, 1, 2, 3)), np.full((1, 1, 3, 1), 2.0))[0, 0, :, 0]
        array([6., 6.])
    """
    code = activation_code(activation)
    x = as_array("x", x)
    kernel = as_array("pointwise_kernel", pointwise_kernel, x.dtype)
    sizes, shape = _sizes(x.shape, kernel.shape, conv_spec(data_format=data_format))
    if bias is not None:
        bias = as_array("bias", bias, x.dtype)
        check_bias(bias.shape, kernel.shape[3])
    y = output_array(out, shape, x)
    _native.pointwise_forward(*sizes, dtype_code(x.dtype), x, kernel, bias, None, y, code)
    return y


def pointwise_conv2d_grad(
    x: np.ndarray,
    pointwise_kernel: np.ndarray,
    dy: np.ndarray,
    *,
    data_format: str = "channels_last",
) -> PointwiseGrads:
    """The gradients of ``sum(pointwise_conv2d(x, pointwise_kernel, bias, ...) * dy)``.

    Args:
        x: as for `pointwise_conv2d`.
        pointwise_kernel: see there.
        dy: the gradient for the output (before any activation), in the output's shape.
        data_format: see there.

    Returns:
        A named tuple ``(x, pointwise_kernel, bias)`` of gradients.

    Raises:
        ValueError: an argument is out of range, or shapes do not fit.
        TypeError: a dtype is none of these, or dtypes differ.

    Example:
        >>> ones = np.ones((1, 1, 1, 1))
        >>> pointwise_conv2d_grad(ones, 2 * ones, 3 * ones).x
        array([[[[6.]]]])
    """
    x = as_array("x", x)
    kernel = as_array("pointwise_kernel", pointwise_kernel, x.dtype)
    sizes, shape = _sizes(x.shape, kernel.shape, conv_spec(data_format=data_format))
    dy = as_array("dy", dy, x.dtype)
    if dy.shape != shape:
        raise ValueError(
            f"dy must have the shape of the output, {shape}. Received: dy.shape={dy.shape}"
        )
    dx, dkernel = empty(x.shape, x.dtype, dy), empty(kernel.shape, x.dtype)
    dbias = empty((kernel.shape[3],), x.dtype)
    _native.pointwise_backward(*sizes, dtype_code(x.dtype), x, kernel, dy, dx, dkernel, dbias)
    return PointwiseGrads(dx, dkernel, dbias)
