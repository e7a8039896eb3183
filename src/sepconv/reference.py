"""The reference: depthwise and separable convolution in float64, written to be read.

These functions define the results of all others in this package: the tests compare the kernels with
them. They are slow, follow the definition tap by tap, and share no code with the rest, padding
included. A tap on padding adds nothing, so that an infinite weight times padding is nothing, not
NaN. What is between the two steps of a separable convolution, and its gradient, is rounded where x
is of a half type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sepconv._types import DepthwiseGrads, SeparableGrads

__all__ = [
    "activate",
    "depthwise_conv2d",
    "depthwise_conv2d_grad",
    "fused_conv2d",
    "quantized_conv2d",
    "separable_conv2d",
    "separable_conv2d_grad",
]


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _pads(
    padding: str | Sequence[Sequence[int]],
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> list[tuple[int, int]]:
    """(before, after) for both axes."""
    if padding == "valid":
        return [(0, 0), (0, 0)]
    if padding == "same":
        pads = []
        for s, k, step, d in zip(size, kernel, stride, dilation, strict=True):
            outputs = -(-s // step)
            total = max((outputs - 1) * step + (k - 1) * d + 1 - s, 0)
            pads.append((total // 2, total - total // 2))
        return pads
    if isinstance(padding, str):
        raise ValueError(f"padding is unknown. Received: padding={padding!r}")
    (top, bottom), (left, right) = padding
    return [(top, bottom), (left, right)]


class _Taps:
    """The padded input, and the window of it that each kernel tap sees."""

    def __init__(
        self,
        x: np.ndarray,
        kernel_size: tuple[int, int],
        strides: int | Sequence[int],
        padding: str | Sequence[Sequence[int]],
        dilation_rate: int | Sequence[int],
        data_format: str,
    ) -> None:
        x = np.asarray(x, np.float64)
        self.channels_first = data_format == "channels_first"
        if self.channels_first:
            x = x.transpose(0, 2, 3, 1)
        self.stride, self.dilation = _pair(strides), _pair(dilation_rate)
        self.kernel_size = kernel_size
        self.shape = x.shape
        self.pads = _pads(padding, x.shape[1:3], kernel_size, self.stride, self.dilation)
        self.padded = np.pad(x, [(0, 0), *self.pads, (0, 0)])
        #: Which pixels of a padded image are in the image, for (1, height, width, 1, 1).
        self.inside = np.pad(np.ones(x.shape[1:3], bool), self.pads)[None, :, :, None, None]
        self.out = [
            (self.padded.shape[axis + 1] - (kernel_size[axis] - 1) * self.dilation[axis] - 1)
            // self.stride[axis]
            + 1
            for axis in range(2)
        ]

    def __iter__(self) -> Iterator[tuple[int, int, slice, slice]]:
        """Yields (i, j, rows, columns): the tap and the slices of the padded input it sees."""
        for i in range(self.kernel_size[0]):
            for j in range(self.kernel_size[1]):
                rows, columns = (
                    slice(start, start + (count - 1) * step + 1, step)
                    for start, count, step in zip(
                        (i * self.dilation[0], j * self.dilation[1]),
                        self.out,
                        self.stride,
                        strict=True,
                    )
                )
                yield i, j, rows, columns

    def unpad(self, padded: np.ndarray) -> np.ndarray:
        """The part of a padded array that lies over the input."""
        (top, _), (left, _) = self.pads
        return padded[:, top : top + self.shape[1], left : left + self.shape[2]]

    def to_layout(self, x: np.ndarray) -> np.ndarray:
        """From channels_last to the caller's data_format."""
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if self.channels_first else x

    def from_layout(self, x: np.ndarray) -> np.ndarray:
        """From the caller's data_format to channels_last."""
        x = np.asarray(x, np.float64)
        return x.transpose(0, 2, 3, 1) if self.channels_first else x


def activate(y: np.ndarray, activation: str | None) -> np.ndarray:
    """An activation of an array, by its name.

    Example:
        >>> activate(np.array([-1.0, 7.0]), "relu6")
        array([0., 6.])
    """
    if activation == "relu":
        return np.maximum(y, 0)
    if activation == "relu6":
        return np.clip(y, 0, 6)
    if activation in ("hard_silu", "hard_swish"):
        return y * np.clip(y + 3, 0, 6) / 6
    if activation in ("silu", "swish"):
        with np.errstate(over="ignore"):  # then it is 0
            return y / (1 + np.exp(-y))
    return y


def _between(middle: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A depthwise result, or its gradient, as the pointwise step of an `x` of its dtype has it."""
    dtype = np.asarray(x).dtype
    if dtype.name not in ("bfloat16", "float16"):
        return middle
    with np.errstate(over="ignore", invalid="ignore"):
        return middle.astype(dtype).astype(np.float64)


def depthwise_conv2d(
    x: np.ndarray,
    depthwise_kernel: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[Sequence[int]] = "valid",
    dilation_rate: int | Sequence[int] = 1,
    data_format: str = "channels_last",
    activation: str | None = None,
) -> np.ndarray:
    """``y[n, p, q, c*M + m] = sum_ij x[n, p*s + i*d - pad, ...][c] * kernel[i, j, c, m] + bias``.

    Arguments and shapes are those of `sepconv.depthwise_conv2d`, for arrays of any real dtype;
    the result is float64. Arguments are not checked.

    Example:
        >>> depthwise_conv2d(np.ones((1, 3, 3, 1)), np.ones((2, 2, 1, 1)))[0, :, :, 0]
        array([[4., 4.],
               [4., 4.]])
    """
    kernel = np.asarray(depthwise_kernel, np.float64)
    kh, kw, channels, multiplier = kernel.shape
    taps = _Taps(x, (kh, kw), strides, padding, dilation_rate, data_format)
    y = np.zeros((taps.shape[0], *taps.out, channels, multiplier))
    for i, j, rows, columns in taps:
        product = taps.padded[:, rows, columns, :, None] * kernel[i, j]
        y += np.where(taps.inside[:, rows, columns], product, 0)
    y = y.reshape(*y.shape[:3], channels * multiplier)
    if bias is not None:
        y = y + np.asarray(bias, np.float64)
    return taps.to_layout(activate(y, activation))


def separable_conv2d(
    x: np.ndarray,
    depthwise_kernel: np.ndarray,
    pointwise_kernel: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[Sequence[int]] = "valid",
    dilation_rate: int | Sequence[int] = 1,
    data_format: str = "channels_last",
    activation: str | None = None,
) -> np.ndarray:
    """A depthwise convolution, then ``pointwise_kernel[0, 0]`` as a matrix at every pixel.

    Arguments and shapes are those of `sepconv.separable_conv2d`, for arrays of any real dtype;
    the result is float64. Arguments are not checked.

    Example:
        >>> separable_conv2d(np.ones((1, 1, 1, 2)), np.ones((1, 1, 2, 1)), np.ones((1, 1, 2, 3)))
        array([[[[2., 2., 2.]]]])
    """
    axis = 1 if data_format == "channels_first" else 3
    middle = depthwise_conv2d(
        x,
        depthwise_kernel,
        strides=strides,
        padding=padding,
        dilation_rate=dilation_rate,
        data_format=data_format,
    )
    y = np.moveaxis(_between(middle, x), axis, 3) @ np.asarray(pointwise_kernel, np.float64)[0, 0]
    if bias is not None:
        y = y + np.asarray(bias, np.float64)
    return np.ascontiguousarray(np.moveaxis(activate(y, activation), 3, axis))


def fused_conv2d(
    x: np.ndarray,
    depthwise_kernel: np.ndarray | None = None,
    pointwise_kernel: np.ndarray | None = None,
    *,
    depthwise_bias: np.ndarray | None = None,
    depthwise_activation: str | None = None,
    bias: np.ndarray | None = None,
    activation: str | None = None,
    residual: np.ndarray | None = None,
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[Sequence[int]] = "valid",
    dilation_rate: int | Sequence[int] = 1,
    data_format: str = "channels_last",
) -> np.ndarray:
    """A depthwise, an ordinary or a separable convolution, with biases, activations and residual.

    Arguments and shapes are those of `sepconv.fused_conv2d`, for arrays of any real dtype;
    the result is float64. Arguments are not checked. An ordinary convolution counts padding
    as zeros, of which an infinite weight makes NaN.

    Example:
        >>> ones = np.ones((1, 1, 1, 1))
        >>> fused_conv2d(ones, 2 * ones, 3 * ones, depthwise_bias=[1.0], residual=ones)
        array([[[[10.]]]])
    """
    options: dict[str, Any] = {
        "strides": strides,
        "padding": padding,
        "dilation_rate": dilation_rate,
        "data_format": data_format,
    }
    axis = 1 if data_format == "channels_first" else 3
    if pointwise_kernel is None:
        assert depthwise_kernel is not None
        return depthwise_conv2d(x, depthwise_kernel, bias, activation=activation, **options)
    kernel = np.asarray(pointwise_kernel, np.float64)
    if depthwise_kernel is None:
        taps = _Taps(x, (kernel.shape[0], kernel.shape[1]), **options)
        y = sum(taps.padded[:, rows, columns] @ kernel[i, j] for i, j, rows, columns in taps)
    else:
        y = depthwise_conv2d(
            x, depthwise_kernel, depthwise_bias, activation=depthwise_activation, **options
        )
        y = np.moveaxis(_between(y, x), axis, 3) @ kernel[0, 0]
    if bias is not None:
        y = y + np.asarray(bias, np.float64)
    y = np.moveaxis(y, 3, axis)
    if residual is not None:
        y = y + np.asarray(residual, np.float64)
    return np.ascontiguousarray(activate(y, activation))


def quantized_conv2d(
    x: np.ndarray,
    depthwise_kernel: np.ndarray | None = None,
    pointwise_kernel: np.ndarray | None = None,
    *,
    quantization: Any,
    depthwise_bias: np.ndarray | None = None,
    depthwise_activation: str | None = None,
    bias: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    activation: str | None = None,
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[Sequence[int]] = "valid",
    dilation_rate: int | Sequence[int] = 1,
    data_format: str = "channels_last",
) -> np.ndarray:
    """What `sepconv.prepare_conv2d` computes with a `sepconv.Quantization`, to the bit.

    Sums are whole numbers, which float64 holds exactly; what follows them is float32.

    Example:
        >>> from sepconv import Quantization
        >>> of = Quantization(input=(0.5, 10), output=(2.0, 0), kernel_scale=0.02)
        >>> kernel = np.full((1, 1, 2, 1), 100, "int8")
        >>> x = np.full((1, 1, 1, 2), 18, "uint8")
        >>> quantized_conv2d(x, None, kernel, quantization=of)
        array([[[[8]]]], dtype=uint8)
    """
    options: dict[str, Any] = {
        "strides": strides,
        "padding": padding,
        "dilation_rate": dilation_rate,
        "data_format": data_format,
    }
    of, axis = quantization, 1 if data_format == "channels_first" else 3
    source, factors = of.input, of.kernel_scale
    y = np.asarray(x, np.float64) - source[1]
    if depthwise_kernel is not None:
        both = pointwise_kernel is not None
        y = depthwise_conv2d(y, depthwise_kernel, depthwise_bias if both else bias, **options)
        if both:
            scales = np.float64(np.float32(of.depthwise_kernel_scale)) * np.float32(source[0])
            middle = _rounded(
                np.moveaxis(y, axis, 3),
                scales,
                depthwise_activation,
                of.before_depthwise_activation,
                of.between,
            )
            source = of.between
            y = np.moveaxis(middle.astype(np.float64) - source[1], 3, axis)
            options = {"data_format": data_format}
    if pointwise_kernel is not None:
        y = fused_conv2d(y, None, pointwise_kernel, bias=bias, **options)
    added = None
    if residual is not None:
        added = np.moveaxis(np.asarray(residual, np.float32) - of.residual[1], axis, 3)
    scales = np.float64(np.float32(factors)) * np.float32(source[0])
    q = _rounded(
        np.moveaxis(y, axis, 3),
        scales,
        activation,
        of.before_activation,
        of.output,
        None if added is None else (added, of.residual[0]),
    )
    q = np.ascontiguousarray(np.moveaxis(q, 3, axis))
    if of.dtype == "uint8":
        return q
    return (q.astype(np.float32) - np.float32(of.output[1])) * np.float32(of.output[0])


def _rounded(
    sums: np.ndarray,
    scales: Any,
    activation: str | None,
    before: Any,
    after: Any,
    added: Any = None,
) -> np.ndarray:
    """Sums of whole numbers, channels last, as bytes, with the one rounding.

    Args:
        sums: the sums.
        scales: their scale in float64, a number or one a channel.
        activation: what follows.
        before: the scale and zero point that sums are rounded to, where a table follows.
        after: those of the result.
        added: a residual less its zero point, and its scale.
    """
    table = activation not in (None, "linear", "relu", "relu6")
    scale, zero = before if table else after
    scale = np.float64(np.float32(scale))
    t = sums.astype(np.float32) * (scales / scale).astype(np.float32)
    if added is not None:
        t = t + added[0] * np.float32(np.float64(np.float32(added[1])) / scale)
    lower, upper = 0, 255
    if activation in ("relu", "relu6"):
        lower = zero
        upper = 255 if activation == "relu" else min(zero + round(6 / float(scale)), 255)
    q = np.clip(np.rint(t), np.float32(lower - zero), np.float32(upper - zero)) + np.float32(zero)
    q = q.astype(np.uint8)
    if not table:
        return q
    y = activate(scale * (q.astype(np.float64) - zero), activation)
    last = np.float64(np.float32(after[0]))
    return np.clip(np.rint(y / last) + after[1], 0, 255).astype(np.uint8)


def depthwise_conv2d_grad(
    x: np.ndarray,
    depthwise_kernel: np.ndarray,
    dy: np.ndarray,
    *,
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[Sequence[int]] = "valid",
    dilation_rate: int | Sequence[int] = 1,
    data_format: str = "channels_last",
) -> DepthwiseGrads:
    """The gradients of ``sum(depthwise_conv2d(x, depthwise_kernel, bias) * dy)``.

    Arguments and shapes are those of `sepconv.depthwise_conv2d_grad`, for arrays of any real dtype;
    the gradients are float64. Arguments are not checked.

    Example:
        >>> x, kernel, dy = np.ones((1, 3, 3, 1)), np.ones((2, 2, 1, 1)), np.ones((1, 2, 2, 1))
        >>> depthwise_conv2d_grad(x, kernel, dy).x[0, :, :, 0]
        array([[1., 2., 1.],
               [2., 4., 2.],
               [1., 2., 1.]])
    """
    kernel = np.asarray(depthwise_kernel, np.float64)
    kh, kw, channels, multiplier = kernel.shape
    taps = _Taps(x, (kh, kw), strides, padding, dilation_rate, data_format)
    dy = taps.from_layout(dy)
    dbias = dy.sum((0, 1, 2))
    dy = dy.reshape(*dy.shape[:3], channels, multiplier)
    dx = np.zeros_like(taps.padded)
    dkernel = np.zeros_like(kernel)
    for i, j, rows, columns in taps:
        dx[:, rows, columns] += (dy * kernel[i, j]).sum(-1)
        seen = np.where(taps.inside[:, rows, columns], dy, 0)
        dkernel[i, j] = np.einsum("npqc,npqcm->cm", taps.padded[:, rows, columns], seen)
    return DepthwiseGrads(taps.to_layout(taps.unpad(dx)), dkernel, dbias)


def separable_conv2d_grad(
    x: np.ndarray,
    depthwise_kernel: np.ndarray,
    pointwise_kernel: np.ndarray,
    dy: np.ndarray,
    *,
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[Sequence[int]] = "valid",
    dilation_rate: int | Sequence[int] = 1,
    data_format: str = "channels_last",
) -> SeparableGrads:
    """The gradients of ``sum(separable_conv2d(x, kernels..., bias) * dy)``.

    Arguments and shapes are those of `sepconv.separable_conv2d_grad`, for arrays of any real dtype;
    the gradients are float64. Arguments are not checked.

    Example:
        >>> ones = np.ones((1, 1, 1, 1))
        >>> separable_conv2d_grad(3 * ones, ones, ones, ones).pointwise_kernel
        array([[[[3.]]]])
    """
    axis = 1 if data_format == "channels_first" else 3
    options: dict[str, Any] = {
        "strides": strides,
        "padding": padding,
        "dilation_rate": dilation_rate,
        "data_format": data_format,
    }
    pointwise = np.asarray(pointwise_kernel, np.float64)[0, 0]
    middle = _between(depthwise_conv2d(x, depthwise_kernel, **options), x)
    middle = np.moveaxis(middle, axis, 3)
    last = np.moveaxis(np.asarray(dy, np.float64), axis, 3)
    dmiddle = np.moveaxis(_between(last @ pointwise.T, x), 3, axis)
    grads = depthwise_conv2d_grad(x, depthwise_kernel, dmiddle, **options)
    dpointwise = np.einsum("npqc,npqf->cf", middle, last)
    return SeparableGrads(
        grads.x, grads.depthwise_kernel, dpointwise[None, None], last.sum((0, 1, 2))
    )
