"""One call of the kernels for a convolution of NumPy arrays with a `ConvSpec`, or its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from sepconv import _native
from sepconv._types import SeparableGrads
from sepconv.arrays import as_array, dtype_code, empty, output_array
from sepconv.geometry import ACTIVATIONS, ConvSpec, activation_code, check_bias, plan

__all__ = ["convolve", "gradients"]


def convolve(
    x: np.ndarray,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    bias: Any,
    spec: ConvSpec,
    activation: str | None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """A depthwise convolution, and the 1x1 one after it where there is a kernel for it.

    Args:
        x: as for `sepconv.depthwise_conv2d`, but an array as `sepconv.arrays.as_array` returns it.
        depthwise_kernel: see there.
        pointwise_kernel: None for the depthwise step alone, else as for `sepconv.separable_conv2d`.
        bias: None, or one value for each output channel.
        spec: strides, padding, dilation_rate and data_format.
        activation: None, ``"relu"`` or ``"relu6"``.
        out: an array for the result, or None.

    Returns:
        The output, of the dtype of `x`: `out` where that is given.

    Raises:
        ValueError: an argument is out of range, or shapes do not fit.
        TypeError: dtypes differ.

    Example:
        >>> from sepconv.geometry import conv_spec
        >>> ones = np.ones((1, 1, 1, 1))
        >>> convolve(2 * ones, 3 * ones, None, None, conv_spec(), "relu")
        array([[[[6.]]]])
    """
    code = activation_code(activation)
    kernel = as_array("depthwise_kernel", depthwise_kernel, x.dtype)
    pointwise_shape = None
    if pointwise_kernel is not None:
        pointwise_kernel = as_array("pointwise_kernel", pointwise_kernel, x.dtype)
        pointwise_shape = pointwise_kernel.shape
    geometry, channels, shape = plan(spec, x.shape, kernel.shape, pointwise_shape)
    if bias is not None:
        bias = as_array("bias", bias, x.dtype)
        check_bias(bias.shape, channels)
    y = output_array(out, shape, x)
    _native.forward(
        geometry,
        dtype_code(x.dtype),
        x,
        kernel,
        None,
        pointwise_kernel,
        bias,
        None,
        y,
        0 if pointwise_kernel is None else channels,
        ACTIVATIONS[None],
        code,
    )
    return y


def gradients(
    x: np.ndarray, depthwise_kernel: Any, pointwise_kernel: Any, dy: Any, spec: ConvSpec
) -> SeparableGrads:
    """The gradients of ``sum(convolve(...) * dy)``, without an activation, for each operand.

    Args:
        x: as for `convolve`.
        depthwise_kernel: see there.
        pointwise_kernel: see there.
        dy: an array of the output's shape.
        spec: see there.

    Returns:
        A gradient for each operand; that for the pointwise kernel is None where there is none.

    Raises:
        ValueError: an argument is out of range, or shapes do not fit.
        TypeError: dtypes differ.

    Example:
        >>> from sepconv.geometry import conv_spec
        >>> ones = np.ones((1, 1, 1, 1))
        >>> gradients(ones, 2 * ones, None, ones, conv_spec()).x
        array([[[[2.]]]])
    """
    kernel = as_array("depthwise_kernel", depthwise_kernel, x.dtype)
    dpointwise = pointwise_shape = None
    separable = pointwise_kernel is not None
    if separable:
        pointwise_kernel = as_array("pointwise_kernel", pointwise_kernel, x.dtype)
        pointwise_shape = pointwise_kernel.shape
    geometry, channels, shape = plan(spec, x.shape, kernel.shape, pointwise_shape)
    if separable:
        dpointwise = empty(pointwise_kernel.shape, x.dtype)
    dy = as_array("dy", dy, x.dtype)
    if dy.shape != shape:
        raise ValueError(
            f"dy must have the shape of the output, {shape}. Received: dy.shape={dy.shape}"
        )
    dx, dkernel = empty(x.shape, x.dtype, dy), empty(kernel.shape, x.dtype)
    dbias = empty((channels,), x.dtype)
    _native.backward(
        geometry,
        dtype_code(x.dtype),
        x,
        kernel,
        pointwise_kernel,
        dy,
        dx,
        dkernel,
        dpointwise,
        dbias,
        channels if separable else 0,
    )
    return SeparableGrads(dx, dkernel, dpointwise, dbias)
