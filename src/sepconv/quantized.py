"""Convolutions of int8 for NumPy arrays, whose weights stay the same from call to call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sepconv import _native
from sepconv.arrays import empty
from sepconv.fused import BlockPlans, Operands, block_spec, check_block, is_ordinary
from sepconv.geometry import ConvSpec, check_bias

__all__ = ["PreparedQuantizedConv2D", "Quantization", "Rounding", "prepare", "rounding_of"]

#: Activations that bound a result, with where they end; others are looked up.
_ENDS = {None: None, "linear": None, "relu": math.inf, "relu6": 6.0}

_INT32 = np.iinfo(np.int32)

Point = tuple[float, int]


class Quantization(NamedTuple):
    """What the bytes of a convolution of int8 stand for.

    A value of uint8 stands for ``scale * (q - zero_point)``, and is given as such a pair; a weight
    of int8 stands for its scale times itself. See docs/numerics.md.

    Attributes:
        input: of x.
        output: of the result.
        kernel_scale: of the weights from which the output channels are, a number or one a channel:
            of the pointwise kernel, or of a depthwise kernel alone.
        depthwise_kernel_scale: of the depthwise kernel, where both are given.
        between: of what is between the two, where both are given.
        residual: of a residual, where calls have one.
        before_activation: of what ``"silu"`` and ``"hard_silu"`` are taken of, which is rounded
            before it is looked up; where `activation` is one of these.
        before_depthwise_activation: the same, where `depthwise_activation` is.
        dtype: of the result: ``"uint8"``, or ``"float32"`` for the numbers that the bytes stand
            for.

    Example:
        >>> Quantization(input=(0.5, 128), output=(0.25, 0), kernel_scale=0.01).dtype
        'uint8'
    """

    input: Point
    output: Point
    kernel_scale: Any
    depthwise_kernel_scale: Any = None
    between: Point | None = None
    residual: Point | None = None
    before_activation: Point | None = None
    before_depthwise_activation: Point | None = None
    dtype: str = "uint8"


class Rounding(NamedTuple):
    """What follows the sums of a kernel: see docs/numerics.md.

    Attributes:
        scale: float32, a number a channel.
        zero_point: of what is rounded.
        lower: its least number.
        upper: its greatest.
        table: None, or 256 numbers of uint8 to look the results up in.
        unit: the scale of what is rounded.
    """

    scale: np.ndarray
    zero_point: int
    lower: int
    upper: int
    table: np.ndarray | None
    unit: float


def _point(name: str, value: Any) -> tuple[float, int]:
    """A scale, as float32 holds it, and a zero point.

    Raises:
        TypeError: it is no pair.
        ValueError: the scale is not finite and positive, or the zero point is not 0 to 255.
    """
    try:
        scale, zero_point = value
        numbers = float(np.float32(scale)), int(zero_point)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"quantization.{name} must be a pair, (scale, zero_point). Received: {value!r}"
        ) from error
    if not 0 < numbers[0] < math.inf or not 0 <= numbers[1] == zero_point <= 255:
        raise ValueError(
            f"quantization.{name} must be a finite scale above 0 and a zero point of 0 to 255. "
            f"Received: {value!r}"
        )
    return numbers


def _scales(name: str, value: Any, channels: int) -> np.ndarray:
    """Scales of weights, in float64, a number a channel."""
    scales = np.asarray(value, np.float32).astype(np.float64)
    if scales.shape not in ((), (1,), (channels,)):
        raise ValueError(
            f"quantization.{name} must be a number, or one an output channel, ({channels},). "
            f"Received: {name}.shape={scales.shape}"
        )
    if not (np.isfinite(scales) & (scales > 0)).all():
        raise ValueError(
            f"quantization.{name} must be finite and above 0. Received: {name}={value!r}"
        )
    return np.broadcast_to(scales.reshape(-1), (channels,))


def rounding_of(
    factors: np.ndarray, activation: str | None, before: Any, after: Point, name: str
) -> Rounding:
    """How sums become the bytes of a value.

    Args:
        factors: the scale of the sums, in float64, a number a channel.
        activation: of the result.
        before: of what the activation takes, where that is looked up, as it was given.
        after: the result's scale and zero point.
        name: of `before`, in errors.

    Raises:
        TypeError: `before` is no pair.
        ValueError: it is missing where there is a table, or given where there is none.

    Example:
        >>> rounding_of(np.array([0.5]), "relu6", None, (0.05, 10), "before_activation")[1:4]
        (10, 10, 130)
    """
    looked_up = activation not in _ENDS
    if looked_up != (before is not None):
        need = "is needed for" if looked_up else "is of activations that are looked up, not of"
        raise ValueError(
            f"quantization.{name} {need} the activation {activation!r}. Received: {name}={before!r}"
        )
    table, lower, upper = None, 0, 255
    (unit, zero_point) = _point(name, before) if looked_up else after
    if looked_up:
        from sepconv.reference import activate

        numbers = activate((np.arange(256) - zero_point) * unit, activation)
        whole = np.clip(np.rint(numbers / after[0]) + after[1], 0, 255)
        table = whole.astype(np.uint8)
    else:
        end = _ENDS[activation]
        if end is not None:
            lower = zero_point
            upper = 255 if math.isinf(end) else min(zero_point + round(end / unit), 255)
    scale = (factors / unit).astype(np.float32)
    return Rounding(scale, zero_point, lower, upper, table, unit)


class PreparedQuantizedConv2D:
    """A convolution of int8 with fixed weights; `sepconv.prepare_conv2d` makes it.

    Calling it from several threads at once is safe.

    Attributes:
        dtype: of its result.

    Example:
        >>> import sepconv
        >>> kernel = np.full((1, 1, 2, 1), 100, "int8")
        >>> of = Quantization(input=(0.5, 10), output=(2.0, 0), kernel_scale=0.02)
        >>> convolve = sepconv.prepare_conv2d(pointwise_kernel=kernel, quantization=of)
        >>> convolve(np.full((1, 1, 1, 2), 18, "uint8"))  # 2 * (4.0 * 2.0) / 2.0
        array([[[[8]]]], dtype=uint8)
    """

    def __init__(
        self,
        shapes: Operands,
        spec: ConvSpec,
        native: _native.PreparedQuantized,
        quantization: Quantization,
    ) -> None:
        self._native = native
        self._output = _point("output", quantization.output)
        self._has_residual = quantization.residual is not None
        self._plans = BlockPlans(shapes, spec)
        self.dtype = np.dtype(quantization.dtype)

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
                ``"channels_first"``; uint8.
            residual: None, or an array of uint8 of the output's shape that is added before the
                activation; where `quantization.residual` says what it stands for.
            out: an array for the result, C-contiguous and apart from the inputs.

        Raises:
            ValueError: a shape does not fit, or there is a residual that has no scale.
            TypeError: a dtype is another.
        """
        x = _whole("x", x, np.uint8)
        geometry, shape = self._plans[x.shape]
        if residual is not None:
            residual = _whole("residual", residual, np.uint8)
            if residual.shape != shape or not self._has_residual:
                raise ValueError(
                    f"residual must have the shape of the output, {shape}, and there must be "
                    "quantization.residual and a pointwise kernel. Received: residual.shape="
                    f"{residual.shape}"
                )
        y = self._result(out, shape, x)
        whole = y if y.dtype == np.uint8 else empty(shape, np.uint8, x)
        self._native.forward(geometry, x, residual, whole)
        if whole is not y:
            scale, zero_point = self._output
            np.subtract(whole, np.float32(zero_point), out=y)
            np.multiply(y, np.float32(scale), out=y)
        return y

    def _result(self, out: np.ndarray | None, shape: tuple[int, ...], x: np.ndarray) -> np.ndarray:
        if out is None:
            return empty(shape, self.dtype, x)
        if not isinstance(out, np.ndarray):
            raise TypeError(f"out must be a NumPy array. Received: {type(out).__name__}")
        if out.shape != shape or out.dtype != self.dtype or not out.flags.carray:
            raise ValueError(
                f"out must be C-contiguous and writable, of the shape {shape} and the dtype "
                f"{self.dtype}. Received: out.shape={out.shape}, out.dtype={out.dtype}"
            )
        return out


def _whole(name: str, value: Any, dtype: type) -> np.ndarray:
    """An array of whole numbers of a dtype, C-contiguous; nothing is converted."""
    array = np.asarray(value)
    if array.dtype != dtype:
        raise TypeError(
            f"{name} must be {np.dtype(dtype)} where there is a quantization. Received: "
            f"{name}.dtype={array.dtype}"
        )
    return np.require(array, dtype, ["C", "ALIGNED"])


def prepare(
    operands: Operands,
    spec: ConvSpec,
    activations: Sequence[str | None],
    quantization: Quantization,
) -> PreparedQuantizedConv2D:
    """Packs the weights: see `sepconv.prepare_conv2d`.

    Args:
        operands: kernels of int8 and biases of int32, or None.
        spec: of the convolution.
        activations: `depthwise_activation` and `activation`.
        quantization: what the bytes stand for.

    Raises:
        TypeError: a dtype is another, or `quantization` is of another class.
        ValueError: a value of `quantization` is missing or out of range, shapes do not fit, or
            sums could leave int32.
    """
    if not isinstance(quantization, Quantization):
        raise TypeError(
            f"quantization must be a sepconv.Quantization. Received: {type(quantization).__name__}"
        )
    if quantization.dtype not in ("uint8", "float32"):
        raise ValueError(
            f"quantization.dtype must be 'uint8' or 'float32'. Received: {quantization.dtype!r}"
        )
    block_spec(operands, spec, *activations, ordinary=is_ordinary(operands))
    arrays = {
        name: _whole(name, array, np.int8 if name.endswith("kernel") else np.int32)
        for name, array in zip(operands._fields, operands, strict=True)
        if array is not None
    }
    given = operands._replace(**arrays)
    channels, filters = _sizes(given, spec)
    depthwise, pointwise = given.depthwise_kernel, given.pointwise_kernel
    both = depthwise is not None and pointwise is not None
    for name in ("depthwise_kernel_scale", "between"):
        if both != (getattr(quantization, name) is not None):
            raise ValueError(
                f"quantization.{name} is of a convolution with both kernels, and is needed there. "
                f"Received: {name}={getattr(quantization, name)!r}"
            )
    if quantization.before_depthwise_activation is not None and not both:
        raise ValueError(
            "quantization.before_depthwise_activation is of a convolution with both kernels."
        )
    source, output = _point("input", quantization.input), _point("output", quantization.output)
    first, bias, x_scale = None, given.bias, source[0]
    if both:
        between = _point("between", quantization.between)
        scales = _scales("depthwise_kernel_scale", quantization.depthwise_kernel_scale, channels)
        first = rounding_of(
            scales * x_scale,
            activations[0],
            quantization.before_depthwise_activation,
            between,
            "before_depthwise_activation",
        )
        bias = _recentered(pointwise, bias, first.zero_point - between[1])
        x_scale = between[0]
    scales = _scales("kernel_scale", quantization.kernel_scale, filters)
    last = rounding_of(
        scales * x_scale,
        activations[1],
        quantization.before_activation,
        output,
        "before_activation",
    )
    residual = (1.0, 0)
    if quantization.residual is not None:
        if pointwise is None:
            raise ValueError("quantization.residual is of a convolution with a pointwise kernel.")
        residual = _point("residual", quantization.residual)
    native = _packed(given._replace(bias=bias), spec, first, last, source[1], residual)
    return PreparedQuantizedConv2D(given.shapes(), spec, native, quantization)


def _sizes(given: Operands, spec: ConvSpec) -> tuple[int, int]:
    """The channels after a depthwise kernel, and those of the result; checks all shapes."""
    depthwise, pointwise = given.depthwise_kernel, given.pointwise_kernel
    kernel = pointwise if depthwise is None else depthwise
    if kernel.ndim != 4 or 0 in kernel.shape:
        raise ValueError(
            "A kernel must have four axes, (height, width, channels, ...), and elements. Received: "
            f"shape={kernel.shape}"
        )
    x_shape: list[int | None] = [None] * 4
    x_shape[spec.channel_axis] = kernel.shape[2]
    check_block(given.shapes()._replace(x=x_shape), spec)
    middle = kernel.shape[2] * (1 if depthwise is None else kernel.shape[3])
    filters = middle if pointwise is None else pointwise.shape[3]
    if given.bias is not None:
        check_bias(given.bias.shape, filters, "bias", "an output channel")
    return middle, filters


def _recentered(kernel: np.ndarray, bias: np.ndarray | None, apart: int) -> np.ndarray | None:
    """Biases of a product that subtracts another zero point than that of what it takes.

    A table's results may have another zero point than what was rounded before, which is the one
    that kernels subtract.
    """
    if apart == 0:
        return bias
    wide = apart * kernel[0, 0].astype(np.int64).sum(0) + (0 if bias is None else bias)
    if wide.min() < _INT32.min or wide.max() > _INT32.max:
        raise ValueError(
            "The sums of an int8 layer must stay within int32. Received: a bias of "
            f"{int(np.abs(wide).max())}, after quantization.between"
        )
    return wide.astype(np.int32)


def _packed(
    given: Operands,
    spec: ConvSpec,
    first: Rounding | None,
    last: Rounding,
    zero_point: int,
    residual: Point,
) -> _native.PreparedQuantized:
    """The native weights, with the parts of a depthwise kernel alone as the first's."""
    depthwise, pointwise = given.depthwise_kernel, given.pointwise_kernel
    kernel = pointwise if depthwise is None else depthwise
    height, width, channels = kernel.shape[:3]
    filters = 0 if pointwise is None else pointwise.shape[3]
    parts = {"depthwise_": (given.depthwise_bias, first), "": (given.bias, last)}
    if pointwise is None:
        parts = {"depthwise_": (given.bias, last), "": (None, None)}
    arguments: dict[str, Any] = {}
    for prefix, (bias, rounding) in parts.items():
        arguments[f"{prefix}bias"] = bias
        arguments[f"{prefix}scale"] = None if rounding is None else rounding.scale
        arguments[f"{prefix}table"] = None if rounding is None else rounding.table
        arguments[f"{prefix}rounding"] = (0, 0, 0) if rounding is None else rounding[1:4]
    return _native.prepare_quantized(
        (height, width, channels, 1 if depthwise is None else depthwise.shape[3], filters),
        spec[0:4],
        depthwise_kernel=depthwise,
        pointwise_kernel=pointwise,
        **arguments,
        input_zero_point=zero_point,
        residual_zero_point=residual[1],
        residual_scale=float(np.float32(residual[0] / last.unit)),
    )
