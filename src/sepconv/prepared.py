"""Convolutions of NumPy arrays whose weights stay the same from call to call."""

from __future__ import annotations

from typing import overload

import numpy as np

from sepconv import _native
from sepconv.arguments import Padding, Sizes
from sepconv.arrays import as_array, dtype_code, output_array
from sepconv.fused import BlockPlans, Operands, block_spec, check_block, is_ordinary, strided
from sepconv.geometry import ConvSpec, check_rank, conv_spec
from sepconv.quantized import PreparedQuantizedConv2D, Quantization
from sepconv.quantized import prepare as prepare_quantized

__all__ = ["PreparedConv2D", "prepare_conv2d"]


class PreparedConv2D:
    """A convolution with fixed weights; `prepare_conv2d` makes it.

    Calling it from several threads at once is safe.

    Attributes:
        dtype: of its weights, its input and its output.

    Example:
        >>> convolve = prepare_conv2d(pointwise_kernel=np.full((1, 1, 2, 1), 3.0))
        >>> x = np.ones((1, 1, 1, 2))
        >>> convolve(x, residual=10 * np.ones((1, 1, 1, 1)))
        array([[[[16.]]]])
    """

    def __init__(
        self,
        operands: Operands,
        spec: ConvSpec,
        steps: tuple[int, int],
        native: _native.PreparedConvolution,
    ) -> None:
        self._shapes = operands.shapes()
        self._spec, self._steps, self._native = spec, steps, native
        self._plans = BlockPlans(self._shapes, spec)
        self.dtype: np.dtype = next(a.dtype for a in operands if a is not None)

    def __call__(
        self,
        x: np.ndarray,
        residual: np.ndarray | None = None,
        *,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Convolves `x`.

        Args:
            x: (batch, height, width, C), or (batch, C, height, width) where it was prepared for
                ``"channels_first"``; of the dtype of the weights.
            residual: None, or an array of the output's shape that is added before the activation;
                where there is a pointwise kernel.
            out: an array for the result, C-contiguous and apart from the inputs.

        Raises:
            ValueError: a shape does not fit.
            TypeError: a dtype is not that of the weights.
        """
        # The usual case without a call, since this takes most of the time of a small convolution.
        if not (x.__class__ is np.ndarray and x.dtype is self.dtype and x.flags.carray):
            x = as_array("x", x, self.dtype)
        if self._steps != (1, 1):
            check_rank("x", x.shape, 4, "(batch, height, width, channels)")
            x = as_array("x", strided(x, self._steps, self._spec), self.dtype)
        geometry, shape = self._plans[x.shape]
        if residual is not None:
            residual = as_array("residual", residual, self.dtype)
            if self._shapes.pointwise_kernel is None or residual.shape != shape:
                raise ValueError(
                    f"residual must have the shape of the output, {shape}, and there must be "
                    f"a pointwise kernel. Received: residual.shape={residual.shape}"
                )
        y = output_array(out, shape, x)
        self._native.forward(geometry, x, residual, y)
        return y


@overload
def prepare_conv2d(
    depthwise_kernel: np.ndarray | None = None,
    pointwise_kernel: np.ndarray | None = None,
    *,
    depthwise_bias: np.ndarray | None = None,
    depthwise_activation: str | None = None,
    bias: np.ndarray | None = None,
    activation: str | None = None,
    strides: Sizes = 1,
    padding: Padding = "valid",
    dilation_rate: Sizes = 1,
    data_format: str = "channels_last",
    quantization: None = None,
) -> PreparedConv2D: ...
@overload
def prepare_conv2d(
    depthwise_kernel: np.ndarray | None = None,
    pointwise_kernel: np.ndarray | None = None,
    *,
    depthwise_bias: np.ndarray | None = None,
    depthwise_activation: str | None = None,
    bias: np.ndarray | None = None,
    activation: str | None = None,
    strides: Sizes = 1,
    padding: Padding = "valid",
    dilation_rate: Sizes = 1,
    data_format: str = "channels_last",
    quantization: Quantization,
) -> PreparedQuantizedConv2D: ...
def prepare_conv2d(
    depthwise_kernel: np.ndarray | None = None,
    pointwise_kernel: np.ndarray | None = None,
    *,
    depthwise_bias: np.ndarray | None = None,
    depthwise_activation: str | None = None,
    bias: np.ndarray | None = None,
    activation: str | None = None,
    strides: Sizes = 1,
    padding: Padding = "valid",
    dilation_rate: Sizes = 1,
    data_format: str = "channels_last",
    quantization: Quantization | None = None,
) -> PreparedConv2D | PreparedQuantizedConv2D:
    """Makes a convolution of fixed weights, for calling it again and again.

    It computes what `sepconv.fused_conv2d` does with the same arguments: a depthwise convolution,
    an ordinary one, or a depthwise and then a 1x1 one. The weights are copied, the pointwise kernel
    in the order in which the kernels read it, so that no call has to do that: that is up to a tenth
    of the time where images are small and channels many. Changing the arrays later changes nothing.

    Args:
        depthwise_kernel: (kernel_height, kernel_width, C, M), or None; float32, float64, float16 or
            bfloat16.
        pointwise_kernel: (1, 1, C * M, F), or None; at least one of the two is needed. Without a
            `depthwise_kernel` it is that of an ordinary convolution,
            (kernel_height, kernel_width, C, F).
        depthwise_bias: None, or (C * M,); where both kernels are given.
        depthwise_activation: see `activation`; where both kernels are given.
        bias: None, or one value an output channel.
        activation: None, ``"relu"``, ``"relu6"``, ``"hard_silu"`` (or ``"hard_swish"``) or
            ``"silu"`` (or ``"swish"``).
        strides: a positive integer, or two: (height, width).
        padding: ``"valid"``, ``"same"`` or ``((top, bottom), (left, right))``.
        dilation_rate: a positive integer, or two.
        data_format: ``"channels_last"`` or ``"channels_first"``.
        quantization: None; or, for a convolution of int8, a `sepconv.Quantization` of what its
            bytes stand for. Kernels are then int8, of -127 to 127, and biases int32, of the scale
            of the sums; the input is uint8. `sepconv.reference.quantized_conv2d` is what it
            computes, to the bit.

    Returns:
        A function of an input, and of a residual and an ``out`` if need be.

    Raises:
        ValueError: an argument is out of range, shapes do not fit, or sums of int8 could leave
            int32.
        TypeError: a dtype is none of these, or dtypes differ.

    Example:
        >>> convolve = prepare_conv2d(np.full((3, 3, 2, 1), 2.0), activation="relu6")
        >>> convolve(np.full((1, 3, 3, 2), 0.25))[0, 0, 0]
        array([4.5, 4.5])
    """
    spec = conv_spec(strides, padding, dilation_rate, data_format)
    given = Operands(None, depthwise_kernel, depthwise_bias, pointwise_kernel, bias)
    if quantization is not None:
        return prepare_quantized(given, spec, (depthwise_activation, activation), quantization)
    ordinary = is_ordinary(given)
    block, steps = block_spec(given, spec, depthwise_activation, activation, ordinary=ordinary)
    dtype = None
    arrays: dict[str, np.ndarray] = {}
    for name, array in zip(given._fields, given, strict=True):
        if array is not None:
            arrays[name] = as_array(name, array, dtype)
            dtype = arrays[name].dtype
    operands = given._replace(**arrays)
    channels = _check(operands, block.spec)
    kernel, pointwise = operands.depthwise_kernel, operands.pointwise_kernel
    height, width = (pointwise if kernel is None else kernel).shape[:2]
    native = _native.prepare(
        dtype_code(next(iter(arrays.values())).dtype),
        bool(block.spec.channels_first),
        height * width,
        channels,
        1 if kernel is None else kernel.shape[3],
        0 if pointwise is None else pointwise.shape[3],
        kernel,
        operands.depthwise_bias,
        pointwise,
        operands.bias,
        block.depthwise_activation,
        block.activation,
    )
    return PreparedConv2D(operands, block.spec, steps, native)


def _check(operands: Operands, spec: ConvSpec) -> int:
    """The channels of the input; raises where the weights do not fit each other."""
    kernel, pointwise = operands.depthwise_kernel, operands.pointwise_kernel
    if kernel is not None:
        check_rank(
            "depthwise_kernel",
            kernel.shape,
            4,
            "(kernel_height, kernel_width, channels, depth_multiplier)",
        )
        channels = kernel.shape[2]
    else:
        meaning = "(kernel_height, kernel_width, channels, filters)"
        check_rank("pointwise_kernel", pointwise.shape, 4, meaning)
        channels = pointwise.shape[2]
    x_shape = [None] * 4
    x_shape[spec.channel_axis] = channels
    check_block(operands.shapes()._replace(x=x_shape), spec)
    return channels
