"""Depthwise and separable convolution of NumPy arrays, forward and backward.

Arrays are float32, float64, float16 or bfloat16 (of the package ml_dtypes), all of one dtype; what
is stored in the half types is computed in float32. C-contiguous arrays are used in place, others
are copied first; anything with DLPack on the CPU passes without a copy. The GIL is released while
a kernel runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sepconv._types import DepthwiseGrads, SeparableGrads
from sepconv.arguments import Padding, Sizes
from sepconv.arrays import as_array
from sepconv.convolution import convolve, gradients
from sepconv.geometry import (
    ConvSpec,
    check_rank,
    conv_spec,
    conv_spec_1d,
    require_pointwise_kernel,
)

__all__ = [
    "depthwise_conv1d",
    "depthwise_conv1d_grad",
    "depthwise_conv2d",
    "depthwise_conv2d_grad",
    "separable_conv1d",
    "separable_conv1d_grad",
    "separable_conv2d",
    "separable_conv2d_grad",
]


def depthwise_conv2d(
    x: np.ndarray,
    depthwise_kernel: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    strides: Sizes = 1,
    padding: Padding = "valid",
    dilation_rate: Sizes = 1,
    data_format: str = "channels_last",
    activation: str | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Convolves each channel by itself.

    Args:
        x: input, (batch, height, width, C), or (batch, C, height, width) where `data_format` is
            ``"channels_first"``; float32, float64, float16 or bfloat16.
        depthwise_kernel: (kernel_height, kernel_width, C, M), where M is the depth multiplier.
        bias: None, or (C * M,).
        strides: a positive integer, or two: (height, width). They may differ.
        padding: ``"valid"``, ``"same"`` (as TensorFlow and Keras pad) or
            ``((top, bottom), (left, right))``.
        dilation_rate: a positive integer, or two. May be combined with strides.
        data_format: ``"channels_last"`` or ``"channels_first"``.
        activation: None, ``"relu"`` or ``"relu6"``, applied before the result is stored.
        out: an array for the result, C-contiguous and apart from the inputs.

    Returns:
        (batch, out_height, out_width, C * M), or its channels_first form, of the dtype of `x`.
        Output channel ``c * M + m`` is input channel ``c`` under ``depthwise_kernel[..., c, m]``.

    Raises:
        ValueError: an argument is out of range, or shapes do not fit.
        TypeError: a dtype is none of these, or dtypes differ.

    Example:
        >>> x = np.arange(9, dtype="float32").reshape(1, 3, 3, 1)
        >>> depthwise_conv2d(x, np.ones((2, 2, 1, 1), "float32"))[0, :, :, 0]
        array([[ 8., 12.],
               [20., 24.]], dtype=float32)

    Source: Howard et al., MobileNets, 2017, https://arxiv.org/abs/1704.04861
    """
    spec = conv_spec(strides, padding, dilation_rate, data_format)
    return convolve(as_array("x", x), depthwise_kernel, None, bias, spec, activation, out)


def separable_conv2d(
    x: np.ndarray,
    depthwise_kernel: np.ndarray,
    pointwise_kernel: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    strides: Sizes = 1,
    padding: Padding = "valid",
    dilation_rate: Sizes = 1,
    data_format: str = "channels_last",
    activation: str | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """A depthwise convolution, then a 1x1 convolution that mixes channels.

    The depthwise result is never written to memory as a whole.

    Args:
        x: as for `depthwise_conv2d`.
        depthwise_kernel: (kernel_height, kernel_width, C, M).
        pointwise_kernel: (1, 1, C * M, F).
        bias: None, or (F,).
        strides: as for `depthwise_conv2d`, and so the rest.
        padding: see there.
        dilation_rate: see there.
        data_format: see there.
        activation: see there; applied after the 1x1 convolution.
        out: see there.

    Returns:
        (batch, out_height, out_width, F), or its channels_first form.

    Raises:
        ValueError: an argument is out of range, or shapes do not fit.
        TypeError: a dtype is none of these, or dtypes differ.

    Example:
        >>> x = np.ones((1, 4, 4, 2), "float32")
        >>> kernels = np.ones((3, 3, 2, 1), "float32"), np.ones((1, 1, 2, 5), "float32")
        >>> separable_conv2d(x, *kernels, padding="same", strides=(1, 2)).shape
        (1, 4, 2, 5)

    Source: Chollet, Xception, 2017, https://arxiv.org/abs/1610.02357
    """
    require_pointwise_kernel(pointwise_kernel)
    spec = conv_spec(strides, padding, dilation_rate, data_format)
    x = as_array("x", x)
    return convolve(x, depthwise_kernel, pointwise_kernel, bias, spec, activation, out)


def depthwise_conv2d_grad(
    x: np.ndarray,
    depthwise_kernel: np.ndarray,
    dy: np.ndarray,
    *,
    strides: Sizes = 1,
    padding: Padding = "valid",
    dilation_rate: Sizes = 1,
    data_format: str = "channels_last",
) -> DepthwiseGrads:
    """The gradients of ``sum(depthwise_conv2d(x, depthwise_kernel, bias, ...) * dy)``.

    Args:
        x: as for `depthwise_conv2d`.
        depthwise_kernel: see there.
        dy: the gradient for the output (before any activation), in the output's shape.
        strides: see there.
        padding: see there.
        dilation_rate: see there.
        data_format: see there.

    Returns:
        A named tuple ``(x, depthwise_kernel, bias)`` of gradients.

    Raises:
        ValueError: an argument is out of range, or shapes do not fit.
        TypeError: a dtype is none of these, or dtypes differ.

    Example:
        >>> x, kernel = np.ones((1, 3, 3, 1)), np.full((2, 2, 1, 1), 2.0)
        >>> depthwise_conv2d_grad(x, kernel, np.ones((1, 2, 2, 1))).bias
        array([4.])
    """
    spec = conv_spec(strides, padding, dilation_rate, data_format)
    dx, dkernel, _, dbias = gradients(as_array("x", x), depthwise_kernel, None, dy, spec)
    return DepthwiseGrads(dx, dkernel, dbias)


def separable_conv2d_grad(
    x: np.ndarray,
    depthwise_kernel: np.ndarray,
    pointwise_kernel: np.ndarray,
    dy: np.ndarray,
    *,
    strides: Sizes = 1,
    padding: Padding = "valid",
    dilation_rate: Sizes = 1,
    data_format: str = "channels_last",
) -> SeparableGrads:
    """The gradients of ``sum(separable_conv2d(x, kernels..., bias, ...) * dy)``.

    Args:
        x: as for `separable_conv2d`.
        depthwise_kernel: see there.
        pointwise_kernel: see there.
        dy: the gradient for the output (before any activation), in the output's shape.
        strides: see there.
        padding: see there.
        dilation_rate: see there.
        data_format: see there.

    Returns:
        A named tuple ``(x, depthwise_kernel, pointwise_kernel, bias)`` of gradients.

    Raises:
        ValueError: an argument is out of range, or shapes do not fit.
        TypeError: a dtype is none of these, or dtypes differ.

    Example:
        >>> ones = np.ones((1, 1, 1, 1))
        >>> separable_conv2d_grad(ones, 2 * ones, 3 * ones, ones).x
        array([[[[6.]]]])
    """
    require_pointwise_kernel(pointwise_kernel)
    spec = conv_spec(strides, padding, dilation_rate, data_format)
    return gradients(as_array("x", x), depthwise_kernel, pointwise_kernel, dy, spec)


def _image(x: np.ndarray, name: str, data_format: str) -> np.ndarray:
    """Views a batch of sequences as images one pixel high."""
    check_rank(name, x.shape, 3, "(batch, length, channels) in the order of data_format")
    return np.expand_dims(x, 2 if data_format == "channels_first" else 1)


def _sequence(x: np.ndarray, data_format: str) -> np.ndarray:
    return x[:, :, 0] if data_format == "channels_first" else x[:, 0]


def _kernel_image(name: str, kernel: Any, dtype: np.dtype) -> np.ndarray:
    kernel = as_array(name, kernel, dtype)
    check_rank(name, kernel.shape, 3, "(kernel_size, channels, outputs)")
    return np.expand_dims(kernel, 0)


def _images(
    x: np.ndarray,
    depthwise_kernel: np.ndarray,
    strides: Sizes,
    padding: Padding,
    dilation_rate: Sizes,
    data_format: str,
) -> tuple[np.ndarray, np.ndarray, ConvSpec]:
    """Converts the arguments of a 1-D convolution to those of a 2-D one."""
    x = as_array("x", x)
    kernel = _kernel_image("depthwise_kernel", depthwise_kernel, x.dtype)
    spec = conv_spec_1d(kernel.shape[1], strides, padding, dilation_rate, data_format)
    return _image(x, "x", data_format), kernel, spec


def _forward_1d(
    image: np.ndarray,
    kernel: np.ndarray,
    pointwise: np.ndarray | None,
    bias: Any,
    spec: ConvSpec,
    activation: str | None,
    out: np.ndarray | None,
) -> np.ndarray:
    if isinstance(out, np.ndarray):  # anything else is refused by output_array
        out = _image(out, "out", spec.data_format)
    y = convolve(image, kernel, pointwise, bias, spec, activation, out)
    return _sequence(y, spec.data_format)


def _backward_1d(
    image: np.ndarray,
    kernel: np.ndarray,
    pointwise: np.ndarray | None,
    dy: Any,
    spec: ConvSpec,
) -> SeparableGrads:
    dy = _image(as_array("dy", dy, image.dtype), "dy", spec.data_format)
    dx, dkernel, dpointwise, dbias = gradients(image, kernel, pointwise, dy, spec)
    if pointwise is not None:
        dpointwise = dpointwise[0]
    return SeparableGrads(_sequence(dx, spec.data_format), dkernel[0], dpointwise, dbias)


def depthwise_conv1d(
    x: np.ndarray,
    depthwise_kernel: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    strides: Sizes = 1,
    padding: Padding = "valid",
    dilation_rate: Sizes = 1,
    data_format: str = "channels_last",
    activation: str | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """`depthwise_conv2d` along one axis.

    Args:
        x: (batch, length, C), or (batch, C, length).
        depthwise_kernel: (kernel_size, C, M).
        bias: None, or (C * M,).
        strides: a positive integer.
        padding: ``"valid"``, ``"same"``, ``"causal"`` (all of it before the input) or
            ``(left, right)``.
        dilation_rate: a positive integer.
        data_format: ``"channels_last"`` or ``"channels_first"``.
        activation: as for `depthwise_conv2d`.
        out: see there.

    Returns:
        (batch, out_length, C * M), or (batch, C * M, out_length).

    Raises:
        ValueError: an argument is out of range, or shapes do not fit.
        TypeError: a dtype is none of these, or dtypes differ.

    Example:
        >>> x = np.array([[[1.0], [2.0], [3.0]]])
        >>> depthwise_conv1d(x, np.ones((2, 1, 1)), padding="causal")[0, :, 0]
        array([1., 3., 5.])
    """
    geometry = strides, padding, dilation_rate, data_format
    image, kernel, spec = _images(x, depthwise_kernel, *geometry)
    return _forward_1d(image, kernel, None, bias, spec, activation, out)


def separable_conv1d(
    x: np.ndarray,
    depthwise_kernel: np.ndarray,
    pointwise_kernel: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    strides: Sizes = 1,
    padding: Padding = "valid",
    dilation_rate: Sizes = 1,
    data_format: str = "channels_last",
    activation: str | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """`separable_conv2d` along one axis.

    Args:
        x: (batch, length, C), or (batch, C, length).
        depthwise_kernel: (kernel_size, C, M).
        pointwise_kernel: (1, C * M, F).
        bias: None, or (F,).
        strides: as for `depthwise_conv1d`, and so the rest.
        padding: see there.
        dilation_rate: see there.
        data_format: see there.
        activation: see there.
        out: see there.

    Returns:
        (batch, out_length, F), or (batch, F, out_length).

    Raises:
        ValueError: an argument is out of range, or shapes do not fit.
        TypeError: a dtype is none of these, or dtypes differ.

    Example:
        >>> x = np.ones((1, 5, 2))
        >>> separable_conv1d(x, np.ones((3, 2, 1)), np.ones((1, 2, 4))).shape
        (1, 3, 4)
    """
    require_pointwise_kernel(pointwise_kernel)
    geometry = strides, padding, dilation_rate, data_format
    image, kernel, spec = _images(x, depthwise_kernel, *geometry)
    pointwise = _kernel_image("pointwise_kernel", pointwise_kernel, image.dtype)
    return _forward_1d(image, kernel, pointwise, bias, spec, activation, out)


def depthwise_conv1d_grad(
    x: np.ndarray,
    depthwise_kernel: np.ndarray,
    dy: np.ndarray,
    *,
    strides: Sizes = 1,
    padding: Padding = "valid",
    dilation_rate: Sizes = 1,
    data_format: str = "channels_last",
) -> DepthwiseGrads:
    """The gradients of ``sum(depthwise_conv1d(x, depthwise_kernel, bias, ...) * dy)``.

    Args:
        x: as for `depthwise_conv1d`.
        depthwise_kernel: see there.
        dy: the gradient for the output (before any activation), in the output's shape.
        strides: see there.
        padding: see there.
        dilation_rate: see there.
        data_format: see there.

    Returns:
        A named tuple ``(x, depthwise_kernel, bias)`` of gradients.

    Raises:
        ValueError: an argument is out of range, or shapes do not fit.
        TypeError: a dtype is none of these, or dtypes differ.

    Example:
        >>> depthwise_conv1d_grad(np.ones((1, 3, 1)), np.ones((2, 1, 1)), np.ones((1, 2, 1))).bias
        array([2.])
    """
    geometry = strides, padding, dilation_rate, data_format
    image, kernel, spec = _images(x, depthwise_kernel, *geometry)
    dx, dkernel, _, dbias = _backward_1d(image, kernel, None, dy, spec)
    return DepthwiseGrads(dx, dkernel, dbias)


def separable_conv1d_grad(
    x: np.ndarray,
    depthwise_kernel: np.ndarray,
    pointwise_kernel: np.ndarray,
    dy: np.ndarray,
    *,
    strides: Sizes = 1,
    padding: Padding = "valid",
    dilation_rate: Sizes = 1,
    data_format: str = "channels_last",
) -> SeparableGrads:
    """The gradients of ``sum(separable_conv1d(x, kernels..., bias, ...) * dy)``.

    Args:
        x: as for `separable_conv1d`.
        depthwise_kernel: see there.
        pointwise_kernel: see there.
        dy: the gradient for the output (before any activation), in the output's shape.
        strides: see there.
        padding: see there.
        dilation_rate: see there.
        data_format: see there.

    Returns:
        A named tuple ``(x, depthwise_kernel, pointwise_kernel, bias)`` of gradients.

    Raises:
        ValueError: an argument is out of range, or shapes do not fit.
        TypeError: a dtype is none of these, or dtypes differ.

    Example:
        >>> ones = np.ones((1, 1, 1))
        >>> separable_conv1d_grad(ones, ones, 2 * ones, ones).depthwise_kernel
        array([[[2.]]])
    """
    require_pointwise_kernel(pointwise_kernel)
    geometry = strides, padding, dilation_rate, data_format
    image, kernel, spec = _images(x, depthwise_kernel, *geometry)
    pointwise = _kernel_image("pointwise_kernel", pointwise_kernel, image.dtype)
    return _backward_1d(image, kernel, pointwise, dy, spec)
