"""The reference of int8 steps: what each means, in NumPy, to the bit.

A quantised value is an array of uint8 that stands for ``scale * (q - zero_point)``. Sums are whole
numbers, exact in int64; they must stay within int32. What follows a sum is in float32, each
operation rounded by itself::

    t = float32(sum) * scale
    t = t + float32(r - residual_zero_point) * residual_scale      where there is a residual r
    q = clip(round_half_to_even(t), lower - zero_point, upper - zero_point) + zero_point
    y = table[q]                                                   where there is a table

Steps whose names begin with ``dequantized_`` give t itself, float32(sum) * scale, in the units of
their results: one product, and nothing is rounded to a byte.

Whatever computes these steps gives the same bits, on every processor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sepconv.geometry import ConvSpec

if TYPE_CHECKING:
    from sepconv.program.network import Step

__all__ = ["MOVING", "QUANTIZED", "Windows", "as_image", "compute", "requantized"]

Arrays = Mapping[str, np.ndarray]
Attributes = Mapping[str, Any]

#: Sums of an int32 lie between these.
_INT32 = np.iinfo(np.int32)


def requantized(
    t: np.ndarray, zero_point: int, lower: int = 0, upper: int = 255, table: Any = None
) -> np.ndarray:
    """Float32 numbers, in units of a value's scale, as that value: the one rounding of the scheme.

    Args:
        t: the numbers.
        zero_point: of the value.
        lower: the least result.
        upper: the greatest.
        table: None, or 256 numbers of uint8 to look the results up in.

    Example:
        >>> requantized(np.float32([-9, 0.5, 1.5, 300]), 2)
        array([  0,   2,   4, 255], dtype=uint8)
    """
    whole = np.rint(np.asarray(t, np.float32))
    bounded = np.clip(whole, np.float32(lower - zero_point), np.float32(upper - zero_point))
    q = (bounded.astype(np.int32) + zero_point).astype(np.uint8)
    return q if table is None else table[q]


class Windows:
    """What the taps of a kernel see of an image, as whole numbers.

    Args:
        x: the image, channels last.
        spec: strides, dilations and padding.
        size: of the kernel, (height, width).
        outside: what stands in the padding.
    """

    def __init__(
        self, x: np.ndarray, spec: ConvSpec, size: Sequence[int], outside: int = 0
    ) -> None:
        pads, counts = [], []
        for length, k, stride, dilation, given in zip(
            x.shape[1:3], size, spec[0:2], spec[2:4], (spec[5:7], spec[7:9]), strict=True
        ):
            reach = (k - 1) * dilation + 1
            around = tuple(given)
            if spec.same:
                total = max((-(-length // stride) - 1) * stride + reach - length, 0)
                around = total // 2, total - total // 2
            pads.append(around)
            counts.append((length + sum(around) - reach) // stride + 1)
        self._padded = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=outside)
        self._spec, self._size = spec, size
        #: Rows and columns of what comes out.
        self.counts = tuple(counts)

    def __iter__(self) -> Any:
        """Yields (i, j, pixels): a tap, and what it sees of every output."""
        for i in range(self._size[0]):
            for j in range(self._size[1]):
                rows, columns = (
                    slice(tap * dilation, tap * dilation + (count - 1) * stride + 1, stride)
                    for tap, count, stride, dilation in zip(
                        (i, j), self.counts, self._spec[0:2], self._spec[2:4], strict=True
                    )
                )
                yield i, j, self._padded[:, rows, columns]


def _as_float32(sums: np.ndarray) -> np.ndarray:
    """Sums as float32, to the nearest even.

    Raises:
        ValueError: one is outside of int32.
    """
    if sums.size and not _INT32.min <= sums.min() <= sums.max() <= _INT32.max:
        raise ValueError(
            "The sums of an int8 layer must stay within int32; this layer must stay in float. "
            f"Received: sums from {sums.min()} to {sums.max()}"
        )
    return sums.astype(np.float32)


def _product(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The product of whole numbers over the last axis; in float64, which holds it exactly."""
    return (x.astype(np.float64) @ kernel.astype(np.float64)).astype(np.int64)


def _ordinary(x: np.ndarray, kernel: np.ndarray, spec: ConvSpec) -> np.ndarray:
    """Sums of an ordinary convolution of centered numbers."""
    windows = Windows(x, spec, kernel.shape[:2])
    sums = np.zeros((x.shape[0], *windows.counts, kernel.shape[3]), np.int64)
    for i, j, pixels in windows:
        sums += _product(pixels, kernel[i, j])
    return sums


def _depthwise(x: np.ndarray, kernel: np.ndarray, spec: ConvSpec) -> np.ndarray:
    """Sums of a depthwise convolution of centered numbers; channel c * m + k is the k-th of c."""
    windows = Windows(x, spec, kernel.shape[:2])
    channels, multiplier = kernel.shape[2:]
    sums = np.zeros((x.shape[0], *windows.counts, channels, multiplier), np.int64)
    for i, j, pixels in windows:
        sums += pixels[..., None] * kernel[i, j].astype(np.int64)
    return sums.reshape(*sums.shape[:3], channels * multiplier)


def _centered(x: np.ndarray, zero_point: int) -> np.ndarray:
    return x.astype(np.int64) - zero_point


def as_image(x: np.ndarray, spec: ConvSpec) -> np.ndarray:
    """An image with channels last, of one that may be a pixel high and have them first."""
    if x.ndim == 3:
        x = np.expand_dims(x, 2 if spec.channels_first else 1)
    return x.transpose(0, 2, 3, 1) if spec.channels_first else x


def _from_image(y: np.ndarray, spec: ConvSpec, rank: int) -> np.ndarray:
    y = y.transpose(0, 3, 1, 2) if spec.channels_first else y
    y = y.squeeze(2 if spec.channels_first else 1) if rank == 3 else y
    return np.ascontiguousarray(y)


def _finished(
    given: Attributes, weights: Arrays, sums: np.ndarray, residual: np.ndarray | None
) -> np.ndarray:
    """Sums with bias, residual, rounding and table, as the last part of a layer has them.

    Without a zero point to be rounded by, they are float32.
    """
    with np.errstate(over="ignore"):
        t = _as_float32(sums + weights.get("bias", np.int32(0))) * weights["scale"]
    if "output_zero_point" not in given:
        return t
    if residual is not None:
        r = _centered(residual, given["residual_zero_point"]).astype(np.float32)
        t = t + r * np.float32(given["residual_scale"])
    return requantized(
        t, given["output_zero_point"], given["lower"], given["upper"], weights.get("table")
    )


def _quantize(given: Attributes, weights: Arrays, x: np.ndarray) -> np.ndarray:
    # An infinite number is the least or the greatest there is; what is no number is zero.
    with np.errstate(over="ignore", invalid="ignore"):
        t = np.asarray(x, np.float32) * np.float32(given["multiplier"])
    return requantized(np.where(np.isnan(t), np.float32(0), t), given["zero_point"])


def _dequantize(given: Attributes, weights: Arrays, x: np.ndarray) -> np.ndarray:
    return _centered(x, given["zero_point"]).astype(np.float32) * np.float32(given["scale"])


def _convolution(
    given: Attributes, weights: Arrays, x: np.ndarray, residual: np.ndarray | None = None
) -> np.ndarray:
    """A depthwise, an ordinary or a separable one, as in `sepconv.program.reference`.

    A depthwise one alone has its bias, scale and table by the names of the depthwise part, and no
    residual. What lies between the two of a separable one is rounded to uint8, too; its zero point
    is the rounding's, also where a table follows.
    """
    spec, rank = ConvSpec(*given["spec"]), x.ndim
    image = _centered(as_image(x, spec), given["input_zero_point"])
    if "depthwise_kernel" in weights:
        sums = _depthwise(image, weights["depthwise_kernel"], spec)
        sums = sums + weights.get("depthwise_bias", np.int32(0))
        middle = requantized(
            _as_float32(sums) * weights["depthwise_scale"],
            given["depthwise_zero_point"],
            given["depthwise_lower"],
            given["depthwise_upper"],
            weights.get("depthwise_table"),
        )
        if "pointwise_kernel" not in weights:
            if residual is not None:
                raise ValueError("A depthwise convolution alone takes no residual.")
            return _from_image(middle, spec, rank)
        image = _centered(middle, given["depthwise_zero_point"])
        sums = _product(image, weights["pointwise_kernel"][0, 0])
    else:
        sums = _ordinary(image, weights["pointwise_kernel"], spec)
    added = None if residual is None else as_image(residual, spec)
    return _from_image(_finished(given, weights, sums, added), spec, rank)


def _dense(given: Attributes, weights: Arrays, x: np.ndarray) -> np.ndarray:
    sums = _product(_centered(x, given["input_zero_point"]), weights["kernel"])
    return _finished(given, weights, sums, None)


def _binary(given: Attributes, weights: Arrays, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = _centered(a, given["a_zero_point"]), _centered(b, given["b_zero_point"])
    a_scale = np.float32(given["a_scale"])
    if given["function"] == "multiply":
        t = (a * b).astype(np.float32) * a_scale
    else:
        t = a.astype(np.float32) * a_scale + b.astype(np.float32) * np.float32(given["b_scale"])
    return requantized(t, given["output_zero_point"], given["lower"], given["upper"])


def _lookup(given: Attributes, weights: Arrays, x: np.ndarray) -> np.ndarray:
    return weights["table"][x]


def _mean(given: Attributes, weights: Arrays, x: np.ndarray) -> np.ndarray:
    """The mean over axes; `scale` has the reciprocal of their size in it."""
    centered = _centered(x, given["input_zero_point"])
    sums = centered.sum(tuple(given["axes"]), keepdims=given["keepdims"])
    t = np.asarray(sums).astype(np.float32) * np.float32(given["scale"])
    return requantized(t, given["output_zero_point"])


def _average_pool(given: Attributes, weights: Arrays, x: np.ndarray) -> np.ndarray:
    """The mean of the pixels inside the image; where there is none, zero."""
    spec, rank = ConvSpec(*given["spec"]), x.ndim
    image = _centered(as_image(x, spec), given["input_zero_point"])
    sums = sum(pixels for _, _, pixels in Windows(image, spec, given["window"]))
    inside = np.ones((1, *image.shape[1:3], 1), np.int64)
    counts = sum(pixels for _, _, pixels in Windows(inside, spec, given["window"]))
    scales = np.float32(given["scale"]) / np.maximum(counts, 1).astype(np.float32)
    t = np.asarray(sums).astype(np.float32) * scales
    return _from_image(requantized(t, given["output_zero_point"]), spec, rank)


#: The meaning of every step that is of int8 alone, of its attributes, weights and inputs.
QUANTIZED: dict[str, Callable[..., np.ndarray]] = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "quantized_convolution": _convolution,
    "quantized_dense": _dense,
    "dequantized_convolution": _convolution,
    "dequantized_dense": _dense,
    "quantized_binary": _binary,
    "lookup": _lookup,
    "quantized_mean": _mean,
    "quantized_average_pool": _average_pool,
}

#: Steps of other dtypes that uint8 values go through as they are.
MOVING = ("concatenate", "pad", "pool", "reshape", "resize", "slice", "transpose")


def compute(step: Step, weights: Arrays, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """What a step gives that is of int8 alone, or moves uint8 values.

    Args:
        step: the step.
        weights: its tensors, by their part.
        inputs: uint8, or the float32 numbers to quantize.

    Raises:
        ValueError: the step computes in another dtype; or a sum leaves int32.

    Example:
        >>> from sepconv.program.network import Step
        >>> step = Step("quantize", "begin", [0], {"multiplier": 2.0, "zero_point": 10})
        >>> compute(step, {}, [np.float32([-9, 0, 0.5, np.nan])])
        array([ 0, 10, 11, 10], dtype=uint8)
    """
    if step.operation in QUANTIZED:
        return QUANTIZED[step.operation](step.attributes, weights, *inputs)
    moves = (
        step.operation in MOVING
        and step.attributes.get("function", "max") == "max"
        and step.attributes.get("interpolation", "nearest") == "nearest"
    )
    if not moves:
        raise ValueError(
            f"The step {step.name!r} does not compute on quantised values. "
            f"Received: operation={step.operation!r}"
        )
    from sepconv.program import reference

    y = reference.compute(step, {}, [x.astype(np.float64) for x in inputs])
    # The greatest pixel of a window that lies in the padding alone is 0.
    return np.maximum(y, 0).astype(np.uint8)
