"""The arguments of a convolution, checked once and handed down as one value.

`conv_spec` turns what a user wrote (strides, padding, dilation_rate, data_format) into a
`ConvSpec`, and `resolve` applies that to shapes. Everything below this file may assume that its
arguments are right. The arithmetic of sizes and padding is in ``native/geometry.cc``, since
TensorFlow's operations need it at run time without Python; `output_shape` repeats that of sizes,
for sizes that are not known or known by a symbol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

from sepconv._native import Geometry
from sepconv.arguments import Padding, Sizes, explicit_padding, positive_sizes

__all__ = [
    "ACTIVATIONS",
    "ConvSpec",
    "Geometry",
    "activation_code",
    "build_spec",
    "check_bias",
    "check_pointwise_kernel",
    "check_rank",
    "checked_shape",
    "conv_spec",
    "conv_spec_1d",
    "differs",
    "output_shape",
    "plan",
    "require_pointwise_kernel",
    "resolve",
]

#: The activations that kernels apply in registers, with the numbers they know them by.
ACTIVATIONS: dict[str | None, int] = {None: 0, "linear": 0, "relu": 1, "relu6": 2}

_X_AXES = "(batch, height, width, channels) in the order of data_format"
_KERNEL_AXES = "(kernel_height, kernel_width, channels, depth_multiplier)"


class ConvSpec(NamedTuple):
    """A convolution's arguments that depend on no shape; hashable, and ten integers as a tuple.

    The order is that of ``Spec`` in ``native/geometry.h``. `same` is 1 where padding is to be
    computed from the input's size, and the four pads are then 0.
    """

    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    same: int
    pad_top: int
    pad_bottom: int
    pad_left: int
    pad_right: int
    channels_first: int

    @property
    def data_format(self) -> str:
        """``"channels_last"`` or ``"channels_first"``."""
        return "channels_first" if self.channels_first else "channels_last"

    @property
    def channel_axis(self) -> int:
        """The axis of channels in a 4-D array."""
        return 1 if self.channels_first else 3

    def for_channels_last(self) -> ConvSpec:
        """The same for images with channels last.

        Example:
            >>> ConvSpec(2, 2, 1, 1, 1, 0, 0, 0, 0, channels_first=1).for_channels_last()[-1]
            0
        """
        # Of a plain tuple: torch.compile of PyTorch 2.6 cannot follow a slice of a named one.
        return ConvSpec(*(*self,)[:9], 0)


def _data_format(value: Any) -> int:
    if value not in ("channels_last", "channels_first"):
        raise ValueError(
            "data_format must be 'channels_last' or 'channels_first'. "
            f"Received: data_format={value!r}"
        )
    return int(value == "channels_first")


def _plain(value: Any) -> bool:
    """Whether `value` can key a cache. A list cannot; nor can 2.0 and True, which equal 2 and 1."""
    kind = type(value)
    return kind is int or kind is str or (kind is tuple and all(map(_plain, value)))


def conv_spec(
    strides: Sizes = 1,
    padding: Padding = "valid",
    dilation_rate: Sizes = 1,
    data_format: str = "channels_last",
) -> ConvSpec:
    """Checks the arguments of a 2-D convolution and gathers them.

    Args:
        strides: one positive integer, or two: (height, width).
        padding: ``"valid"`` (none), ``"same"`` (an output of ``ceil(size / stride)``, the odd
            row or column of padding after the input, as TensorFlow does) or
            ``((top, bottom), (left, right))``.
        dilation_rate: one positive integer, or two.
        data_format: ``"channels_last"`` (NHWC) or ``"channels_first"`` (NCHW).

    Raises:
        ValueError: a value is out of range or unknown.
        TypeError: a size is no integer.

    Example:
        >>> conv_spec(strides=2, padding="same").stride_w
        2
    """
    # Every call tests whether the cache applies, so the usual types come first.
    if (
        type(data_format) is str
        and (type(padding) is str or _plain(padding))
        and (type(strides) is int or _plain(strides))
        and (type(dilation_rate) is int or _plain(dilation_rate))
    ):
        return _conv_spec(strides, padding, dilation_rate, data_format)
    return build_spec(strides, padding, dilation_rate, data_format)


def build_spec(
    strides: Sizes,
    padding: Padding,
    dilation_rate: Sizes,
    data_format: str,
) -> ConvSpec:
    """`conv_spec` without its cache, for compilers that trace Python code (torch.compile)."""
    stride_h, stride_w = positive_sizes("strides", strides, 2)
    dilation_h, dilation_w = positive_sizes("dilation_rate", dilation_rate, 2)
    same = top = bottom = left = right = 0
    if isinstance(padding, str):
        lowered = padding.lower()
        if lowered not in ("valid", "same"):
            raise ValueError(
                "padding must be 'valid', 'same' or ((top, bottom), (left, right)). "
                f"Received: padding={padding!r}"
            )
        same = int(lowered == "same")
    else:
        top, bottom, left, right = explicit_padding(padding, 2)
    return ConvSpec(
        stride_h,
        stride_w,
        dilation_h,
        dilation_w,
        same,
        top,
        bottom,
        left,
        right,
        _data_format(data_format),
    )


_conv_spec = lru_cache(maxsize=1024)(build_spec)


def conv_spec_1d(
    kernel_size: int,
    strides: Sizes = 1,
    padding: Padding = "valid",
    dilation_rate: Sizes = 1,
    data_format: str = "channels_last",
    build: Callable[..., ConvSpec] = conv_spec,
) -> ConvSpec:
    """As `conv_spec` for one spatial axis, which becomes the width of an image one pixel high.

    `padding` may also be ``"causal"``: ``(kernel_size - 1) * dilation_rate`` before the input, so
    that no output sees a later input, or ``(left, right)``. `build` is `conv_spec` or `build_spec`.

    Example:
        >>> conv_spec_1d(3, padding="causal", dilation_rate=2).pad_left
        4
    """
    (stride,) = positive_sizes("strides", strides, 1)
    (dilation,) = positive_sizes("dilation_rate", dilation_rate, 1)
    pads: Padding
    if isinstance(padding, str):
        lowered = padding.lower()
        if lowered == "causal":
            pads = ((0, 0), ((kernel_size - 1) * dilation, 0))
        elif lowered in ("valid", "same"):
            pads = lowered
        else:
            raise ValueError(
                "padding must be 'valid', 'same', 'causal' or (left, right). "
                f"Received: padding={padding!r}"
            )
    else:
        left, right = explicit_padding(padding, 1)
        pads = ((0, 0), (left, right))
    return build((1, stride), pads, (1, dilation), data_format)


@lru_cache(maxsize=4096)
def resolve(
    spec: ConvSpec, x_shape: tuple[int, ...], depthwise_kernel_shape: tuple[int, ...]
) -> Geometry:
    """Applies a spec to shapes and returns what the kernels work with.

    Args:
        spec: the convolution's arguments.
        x_shape: (batch, height, width, channels), or (batch, channels, height, width).
        depthwise_kernel_shape: (kernel_height, kernel_width, channels, depth_multiplier).

    Returns:
        A `Geometry` with ``x_shape``, ``kernel_shape``, ``pads``, ``depthwise_channels`` and
        ``output_shape(channels)``.

    Raises:
        ValueError: ranks, channels or sizes do not fit, or the output would be empty.

    Example:
        >>> resolve(conv_spec(strides=2), (1, 9, 9, 4), (3, 3, 4, 2)).output_shape(8)
        (1, 4, 4, 8)
    """
    check_rank("x", x_shape, 4, _X_AXES)
    check_rank("depthwise_kernel", depthwise_kernel_shape, 4, _KERNEL_AXES)
    return Geometry(tuple(spec), tuple(x_shape), tuple(depthwise_kernel_shape))


def check_rank(name: str, shape: Sequence[int], rank: int, meaning: str) -> None:
    """Raises a ValueError unless `shape` has `rank` axes."""
    if len(shape) != rank:
        raise ValueError(
            f"{name} must have {rank} axes: {meaning}. Received: {name}.shape={tuple(shape)}"
        )


def require_pointwise_kernel(value: Any) -> None:
    """Raises a TypeError where a separable convolution was called without its second kernel."""
    if value is None:
        raise TypeError("pointwise_kernel must be an array. Received: None")


def differs(a: Any, b: Any) -> bool:
    """Whether two sizes are known to differ: one that is None or a symbol fits any other."""
    return isinstance(a, int) and isinstance(b, int) and a != b


def check_pointwise_kernel(shape: Sequence[Any], channels: Any) -> Any:
    """The number of filters of a pointwise kernel of `shape`, which must take `channels`.

    Sizes may be unknown, as in `output_shape`.

    Raises:
        ValueError: the shape is not (1, 1, channels, filters).
    """
    if (
        len(shape) != 4
        or any(map(differs, shape, (1, 1, channels, shape[3])))
        or not _positive(shape)
    ):
        raise ValueError(
            f"pointwise_kernel must have the shape (1, 1, {channels}, filters), where {channels} "
            "is the input's channels times depth_multiplier. "
            f"Received: pointwise_kernel.shape={tuple(shape)}"
        )
    return shape[3]


def _ordinary_window(shape: Sequence[Any], channels: Any) -> tuple[Any, ...]:
    """The shape of the depthwise kernel whose geometry an ordinary one of `shape` has."""
    if len(shape) != 4 or differs(shape[2], channels) or not _positive(shape):
        height, width = shape[:2] if len(shape) == 4 else ("kernel_height", "kernel_width")
        raise ValueError(
            f"pointwise_kernel must have the shape ({height}, {width}, {channels}, filters), where "
            f"{channels} is the input's channels. "
            f"Received: pointwise_kernel.shape={tuple(shape)} and no depthwise_kernel"
        )
    return shape[0], shape[1], channels, 1


_INT = frozenset([int])
KernelShapes = tuple[Sequence[Any] | None, Sequence[Any] | None]


def _output_size(
    name: str, size: Any, kernel: Any, stride: int, dilation: int, pads: tuple[int, int] | None
) -> Any:
    """The size of one spatial axis of the result; `pads` is None for padding ``"same"``."""
    if size is None or (kernel is None and pads is not None):
        return None
    if pads is None:
        return (size + stride - 1) // stride
    padded, reach = size + sum(pads), (kernel - 1) * dilation + 1
    if isinstance(padded, int) and isinstance(reach, int) and padded < reach:
        raise ValueError(
            f"The output would be empty: the input's {name} is {size} ({padded} with padding), "
            f"smaller than the kernel's reach of {reach} (kernel size {kernel}, dilation_rate "
            f"{dilation}). Use padding='same', a smaller kernel or a larger input."
        )
    return (padded - reach) // stride + 1


def output_shape(
    spec: ConvSpec, x_shape: Sequence[Any], kernel_shapes: KernelShapes
) -> tuple[Any, ...]:
    """The shape of a convolution's result, as far as it is known.

    A size may be an integer, None where an engine that traces does not know it, or a symbol
    (JAX's, PyTorch's), which enters the arithmetic. Only integers are checked.

    Args:
        spec: the convolution's arguments.
        x_shape: (batch, height, width, channels), or (batch, channels, height, width).
        kernel_shapes: (kernel_height, kernel_width, channels, depth_multiplier) of the depthwise
            kernel and (1, 1, channels * depth_multiplier, filters) of the pointwise kernel; None
            for a step that there is not. Without a depthwise kernel the second is that of an
            ordinary convolution, (kernel_height, kernel_width, channels, filters).

    Raises:
        ValueError: shapes do not fit each other, or the output would be empty.

    Example:
        >>> output_shape(conv_spec(2), (None, 9, None, 4), ((3, 3, 4, 2), None))
        (None, 4, None, 8)
    """
    depthwise, pointwise = kernel_shapes
    check_rank("x", x_shape, 4, _X_AXES)
    channels = x_shape[spec.channel_axis]
    if depthwise is not None:
        check_rank("depthwise_kernel", depthwise, 4, _KERNEL_AXES)
    batch, *sizes = x_shape
    data_format = f"with data_format='{spec.data_format}'"
    if (isinstance(batch, int) and batch < 0) or not _positive(sizes):
        raise ValueError(
            "The input's height, width and channels must be positive. "
            f"Received: x.shape={tuple(x_shape)} {data_format}."
        )
    if depthwise is None:
        assert pointwise is not None
        kernel = _ordinary_window(tuple(pointwise), channels)
    else:
        kernel = tuple(depthwise)
    if not _positive(kernel):
        raise ValueError(
            "depthwise_kernel must have positive sizes (kernel_height, kernel_width, channels, "
            f"depth_multiplier). Received: depthwise_kernel.shape={kernel}."
        )
    if differs(kernel[2], channels):
        raise ValueError(
            "depthwise_kernel's third axis must equal the input's channels. "
            f"Received: x.shape={tuple(x_shape)} {data_format}, so {channels} channels, and "
            f"depthwise_kernel.shape={kernel}."
        )
    spatial_axes = (2, 3) if spec.channels_first else (1, 2)
    pads = (spec.pad_top, spec.pad_bottom), (spec.pad_left, spec.pad_right)
    height, width = (
        _output_size(name, x_shape[axis], size, stride, dilation, None if spec.same else around)
        for name, axis, size, stride, dilation, around in zip(
            ("height", "width"), spatial_axes, kernel, spec[0:2], spec[2:4], pads, strict=False
        )
    )
    inner = channels if kernel[2] is None else kernel[2]
    outputs = None if inner is None or kernel[3] is None else inner * kernel[3]
    if pointwise is not None:
        pointwise = tuple(pointwise)
        outputs = pointwise[3] if depthwise is None else check_pointwise_kernel(pointwise, outputs)
    if spec.channels_first:
        return batch, outputs, height, width
    return batch, height, width, outputs


def _positive(sizes: Sequence[Any]) -> bool:
    return not any(isinstance(size, int) and size <= 0 for size in sizes)


def checked_shape(
    spec: ConvSpec, x_shape: Sequence[Any], kernel_shapes: KernelShapes
) -> tuple[Any, ...]:
    """`output_shape`, which also raises where known shapes are larger than memory can address."""
    depthwise, pointwise = kernel_shapes
    # In every eager call, so sizes are not looked at one by one.
    if _INT.issuperset(map(type, chain(x_shape, depthwise or (), pointwise or ()))):
        depthwise = None if depthwise is None else tuple(depthwise)
        pointwise = None if pointwise is None else tuple(pointwise)
        return plan(spec, tuple(x_shape), depthwise, pointwise)[2]
    return output_shape(spec, x_shape, kernel_shapes)


@lru_cache(maxsize=4096)
def plan(
    spec: ConvSpec,
    x_shape: tuple[int, ...],
    depthwise_kernel_shape: tuple[int, ...] | None,
    pointwise_kernel_shape: tuple[int, ...] | None,
) -> tuple[Geometry, int, tuple[int, ...]]:
    """The geometry of a call, its output's channels and its output's shape.

    Args:
        spec: as for `resolve`.
        x_shape: see there.
        depthwise_kernel_shape: see there; None for an ordinary convolution.
        pointwise_kernel_shape: None for the depthwise step alone.

    Raises:
        ValueError: the shapes do not fit each other, or the output would be empty.

    Example:
        >>> plan(conv_spec(), (1, 9, 9, 4), (3, 3, 4, 2), (1, 1, 8, 5))[1:]
        (5, (1, 7, 7, 5))
    """
    if depthwise_kernel_shape is None:
        assert pointwise_kernel_shape is not None
        check_rank("x", x_shape, 4, _X_AXES)
        window = _ordinary_window(pointwise_kernel_shape, x_shape[spec.channel_axis])
        geometry, channels = resolve(spec, x_shape, window), pointwise_kernel_shape[3]
    else:
        geometry = resolve(spec, x_shape, depthwise_kernel_shape)
        channels = geometry.depthwise_channels
        if pointwise_kernel_shape is not None:
            channels = check_pointwise_kernel(pointwise_kernel_shape, channels)
    return geometry, channels, geometry.output_shape(channels)


def check_bias(
    shape: Sequence[Any], channels: Any, name: str = "bias", each: str = "an output channel"
) -> None:
    """Raises a ValueError unless a bias of `shape` fits `channels` outputs, as far as is known."""
    if len(shape) != 1 or differs(shape[0], channels):
        raise ValueError(
            f"{name} must have the shape ({channels},), one value {each}. "
            f"Received: {name}.shape={tuple(shape)}"
        )


def activation_code(activation: str | None) -> int:
    """The number of an activation in C++.

    Raises:
        ValueError: it is none of `ACTIVATIONS`.
    """
    try:
        return ACTIVATIONS[activation]
    except (KeyError, TypeError):
        raise ValueError(
            f"activation must be one of {list(ACTIVATIONS)}; apply any other to the result. "
            f"Received: activation={activation!r}"
        ) from None
