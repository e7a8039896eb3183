"""A convolution block of an inference network as one operation: of NumPy arrays, and its checks.

A block is a depthwise convolution, an ordinary one (1x1 mostly), or a depthwise and then a 1x1 one,
each with a bias and an activation, and what a residual connection adds before the last activation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from sepconv import _native
from sepconv.arguments import Padding, Sizes
from sepconv.arrays import as_array, dtype_code, output_array
from sepconv.geometry import (
    ACTIVATIONS,
    ConvSpec,
    check_bias,
    check_rank,
    checked_shape,
    conv_spec,
    differs,
    output_shape,
    plan,
)

__all__ = [
    "BLOCK_ACTIVATIONS",
    "BlockPlans",
    "BlockSpec",
    "Operands",
    "block_spec",
    "check_block",
    "fused_conv2d",
    "is_convolution",
    "is_ordinary",
    "is_product",
    "strided",
]

#: The activations of a block, with the numbers that kernels know them by.
BLOCK_ACTIVATIONS: dict[str | None, int] = {
    **ACTIVATIONS,
    "hard_silu": 3,
    "hard_swish": 3,
    "silu": 4,
    "swish": 4,
}


class BlockSpec(NamedTuple):
    """The arguments of a block except its arrays; hashable.

    The strides of a 1x1 convolution alone are dealt with before: `spec` has none then.
    """

    spec: ConvSpec
    depthwise_activation: int
    activation: int


class Operands(NamedTuple):
    """The arrays of a block, or None. This order is that of the kernels.

    Without a depthwise kernel the pointwise one is an ordinary convolution's, [kh, kw, C, F].
    """

    x: Any
    depthwise_kernel: Any = None
    depthwise_bias: Any = None
    pointwise_kernel: Any = None
    bias: Any = None
    residual: Any = None

    def map(self, function: Callable[[Any], Any]) -> Operands:
        """Applies a function to every array that is not None."""
        return Operands(*(None if array is None else function(array) for array in self))

    def with_images(self, x: Any, residual: Any) -> Operands:
        """The same with another input and residual."""
        # By name: torch.compile of PyTorch 2.6 does not follow `_replace`.
        kernels = self.depthwise_kernel, self.depthwise_bias, self.pointwise_kernel, self.bias
        return Operands(x, *kernels, residual)

    def bits(self) -> int:
        """Which arrays there are: bit i for the i-th, as the kernels' bindings are told it."""
        return sum([1 << i for i, array in enumerate(self) if array is not None])

    def shapes(self) -> Operands:
        """The arrays' shapes in their places."""
        return self.map(lambda array: array.shape)


def _code(name: str, activation: str | None) -> int:
    try:
        return BLOCK_ACTIVATIONS[activation]
    except (KeyError, TypeError):
        raise ValueError(
            f"{name} must be one of {list(BLOCK_ACTIVATIONS)}. Received: {name}={activation!r}"
        ) from None


def is_convolution(operands: Operands, block: BlockSpec) -> bool:
    """Whether a block is no more than a depthwise or separable convolution, by its parts.

    Those have derivatives by kernels; any other block has those of what it is composed of.
    """
    return (
        operands.depthwise_kernel is not None
        and operands.depthwise_bias is None
        and operands.residual is None
        and block.depthwise_activation == ACTIVATIONS[None]
        and block.activation in ACTIVATIONS.values()
    )


def is_ordinary(operands: Operands) -> bool:
    """Whether a block is an ordinary convolution of more than a pixel, or may turn out to be one.

    A size that an engine does not know while it traces may be any.
    """
    kernel = operands.pointwise_kernel
    if operands.depthwise_kernel is not None or kernel is None:
        return False
    shape = kernel.shape if hasattr(kernel, "shape") else np.shape(kernel)
    return len(shape) == 4 and not (shape[0] == 1 and shape[1] == 1)


def is_product(kernel_shape: Sequence[Any], spec: ConvSpec) -> bool:
    """Whether an ordinary convolution is the product of each pixel's channels with a matrix."""
    strides = spec.stride_h, spec.stride_w
    return tuple(kernel_shape[:2]) == (1, 1) == strides and not _has_pads(spec)


def _has_pads(spec: ConvSpec) -> bool:
    # By name: torch.compile of PyTorch 2.6 cannot follow a slice of a named tuple.
    return any((spec.pad_top, spec.pad_bottom, spec.pad_left, spec.pad_right))


def block_spec(
    operands: Operands,
    spec: ConvSpec,
    depthwise_activation: str | None,
    activation: str | None,
    *,
    ordinary: bool,
) -> tuple[BlockSpec, tuple[int, int]]:
    """Checks those arguments of a block that need no shape.

    Args:
        operands: only whether each is None matters; x is not used.
        spec: of the depthwise or ordinary convolution; of strides alone for a 1x1 one.
        depthwise_activation: as for `fused_conv2d`.
        activation: see there.
        ordinary: what `is_ordinary` says of the operands.

    Returns:
        The block, and the strides by which its input must be thinned out first.

    Raises:
        ValueError: a value is out of range, or there is no kernel.
    """
    depthwise, pointwise = operands.depthwise_kernel, operands.pointwise_kernel
    if depthwise is None and pointwise is None:
        raise ValueError("At least one of depthwise_kernel and pointwise_kernel must be given.")
    between = _code("depthwise_activation", depthwise_activation)
    last = _code("activation", activation)
    if depthwise is None or pointwise is None:
        for name, given in (
            ("depthwise_bias", operands.depthwise_bias is not None),
            ("depthwise_activation", between != 0),
        ):
            if given:
                raise ValueError(
                    f"{name} acts between a depthwise and a 1x1 convolution, and one of the two "
                    f"kernels is None. Give bias and activation instead."
                )
    if operands.residual is not None and pointwise is None:
        raise ValueError(
            "residual cannot be added to a depthwise convolution alone: give a pointwise_kernel."
        )
    if depthwise is not None or ordinary:
        return BlockSpec(spec, between, last), (1, 1)
    if _has_pads(spec):
        padding = (spec.pad_top, spec.pad_bottom), (spec.pad_left, spec.pad_right)
        raise ValueError(
            "padding around a 1x1 convolution alone must be none. "
            f"Received: padding={padding} without a depthwise_kernel"
        )
    plain = ConvSpec(1, 1, 1, 1, 0, 0, 0, 0, 0, spec.channels_first)
    return BlockSpec(plain, between, last), (spec.stride_h, spec.stride_w)


def strided(x: Any, strides: tuple[int, int], spec: ConvSpec) -> Any:
    """The pixels of `x` that a 1x1 convolution with these strides sees."""
    if strides == (1, 1):
        return x
    rows, columns = slice(None, None, strides[0]), slice(None, None, strides[1])
    return x[:, :, rows, columns] if spec.channels_first else x[:, rows, columns]


def check_block(shapes: Operands, spec: ConvSpec) -> tuple[Any, ...]:
    """The output's shape; raises where a block's arrays do not fit each other, as far as is known.

    Args:
        shapes: of the arrays; sizes as for `sepconv.geometry.output_shape`.
        spec: the arguments of the depthwise or ordinary convolution.

    Raises:
        ValueError: a shape does not fit.
    """
    shape = checked_shape(spec, shapes.x, (shapes.depthwise_kernel, shapes.pointwise_kernel))
    if shapes.depthwise_bias is not None:
        steps = output_shape(spec, shapes.x, (shapes.depthwise_kernel, None))
        channels = steps[spec.channel_axis]
        check_bias(shapes.depthwise_bias, channels, "depthwise_bias", "a depthwise channel")
    if shapes.bias is not None:
        check_bias(shapes.bias, shape[spec.channel_axis])
    if shapes.residual is not None:
        received = tuple(shapes.residual)
        if len(received) != 4 or any(map(differs, received, shape)):
            raise ValueError(
                f"residual must have the shape of the output, {shape}. "
                f"Received: residual.shape={received}"
            )
    return shape


class BlockPlan(NamedTuple):
    """The plan of a call, which depends on the input's shape, and the output's shape."""

    geometry: _native.Geometry
    shape: tuple[int, ...]


class BlockPlans(dict[tuple[int, ...], BlockPlan]):
    """The plans of a block of fixed weights, by the input's shape, each made when first asked for.

    Args:
        shapes: of the block's weights.
        spec: of its first convolution.

    Raises:
        ValueError: an input of that shape does not fit; at the look-up.

    Example:
        >>> plans = BlockPlans(Operands(None, pointwise_kernel=(1, 1, 2, 5)), conv_spec())
        >>> plans[3, 8, 8, 2].shape
        (3, 8, 8, 5)
    """

    #: The most shapes whose plans are kept.
    most = 64

    def __init__(self, shapes: Operands, spec: ConvSpec) -> None:
        super().__init__()
        self._shapes, self._spec = shapes, spec

    def __missing__(self, x_shape: tuple[int, ...]) -> BlockPlan:
        shape = check_block(self._shapes._replace(x=x_shape), self._spec)
        kernels = self._shapes.depthwise_kernel, self._shapes.pointwise_kernel
        made = BlockPlan(plan(self._spec, x_shape, *kernels)[0], shape)
        if len(self) >= self.most:
            self.clear()
        self[x_shape] = made
        return made


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
    strides: Sizes = 1,
    padding: Padding = "valid",
    dilation_rate: Sizes = 1,
    data_format: str = "channels_last",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """A block of an inference network in one pass over memory.

    With both kernels it computes
    ``activation(pointwise(depthwise_activation(depthwise(x) + depthwise_bias)) + bias + residual)``
    and with one of them ``activation(convolution(x) + bias + residual)``: a depthwise convolution,
    or without `depthwise_kernel` an ordinary one.

    It is for running a network that has been trained: batch normalisation folded into kernels and
    biases, as `sepconv.optimize` does with a Keras model.

    Args:
        x: input, (batch, height, width, C), or (batch, C, height, width) where `data_format` is
            ``"channels_first"``; float32, float64, float16 or bfloat16.
        depthwise_kernel: (kernel_height, kernel_width, C, M), or None.
        pointwise_kernel: (1, 1, C * M, F), or None; at least one of the two is needed. Without a
            `depthwise_kernel` it is that of an ordinary convolution,
            (kernel_height, kernel_width, C, F).
        depthwise_bias: None, or (C * M,); where both kernels are given.
        depthwise_activation: see `activation`; where both kernels are given.
        bias: None, or one value an output channel.
        activation: None, ``"relu"``, ``"relu6"``, ``"hard_silu"`` (or ``"hard_swish"``) or
            ``"silu"`` (or ``"swish"``).
        residual: None, or an array of the output's shape that is added before `activation`; where
            there is a pointwise_kernel.
        strides: a positive integer, or two: (height, width), of the first convolution.
        padding: ``"valid"``, ``"same"`` or ``((top, bottom), (left, right))``, around what the
            first convolution sees; none is possible around a 1x1 convolution alone.
        dilation_rate: a positive integer, or two.
        data_format: ``"channels_last"`` or ``"channels_first"``.
        out: an array for the result, C-contiguous and apart from the inputs.

    Returns:
        (batch, out_height, out_width, F or C * M), or its channels_first form.

    Raises:
        ValueError: an argument is out of range, or shapes do not fit.
        TypeError: a dtype is none of these, or dtypes differ.

    Example:
        >>> x = np.full((1, 1, 2, 1), 2.0)
        >>> kernel = np.full((1, 1, 1, 1), 3.0)
        >>> fused_conv2d(x, kernel, kernel, depthwise_activation="relu6", residual=x)[0, 0, :, 0]
        array([20., 20.])

    Source: Sandler et al., MobileNetV2, 2018, https://arxiv.org/abs/1801.04381
    """
    spec = conv_spec(strides, padding, dilation_rate, data_format)
    operands = Operands(x, depthwise_kernel, depthwise_bias, pointwise_kernel, bias, residual)
    ordinary = is_ordinary(operands)
    block, steps = block_spec(operands, spec, depthwise_activation, activation, ordinary=ordinary)
    x = as_array("x", x)
    check_rank("x", x.shape, 4, "(batch, height, width, channels) in the order of data_format")
    return fuse(operands._replace(x=strided(x, steps, block.spec)), block, out)


def fuse(operands: Operands, block: BlockSpec, out: np.ndarray | None = None) -> np.ndarray:
    """`fused_conv2d` for callers that have a `BlockSpec`."""
    x = as_array("x", operands.x)
    named = zip(operands._fields[1:], operands[1:], strict=True)
    operands = Operands(x, *(a if a is None else as_array(n, a, x.dtype) for n, a in named))
    shapes = operands.shapes()
    shape = check_block(shapes, block.spec)
    kernels = shapes.depthwise_kernel, shapes.pointwise_kernel
    geometry, channels, _ = plan(block.spec, x.shape, *kernels)
    y = output_array(out, shape, x)
    _native.forward(
        geometry,
        dtype_code(x.dtype),
        *operands,
        y,
        0 if operands.pointwise_kernel is None else channels,
        block.depthwise_activation,
        block.activation,
    )
    return y
