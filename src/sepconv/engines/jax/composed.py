"""What JAX's operations are composed of: three bilinear primitives, products with a matrix, biases.

The three are the depthwise convolution, its input gradient and its kernel gradient. Each is linear
in either of its two operands, and the transpose of each is another of the three, so derivatives of
any order consist of these three alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad, batching

from sepconv.engines.jax.calls import backward_call, forward_call, make_primitive, output_aval
from sepconv.engines.jax.compat import typeof
from sepconv.engines.jax.transforms import (
    fold,
    fold_batch,
    fold_outputs,
    repeat,
    unfold,
    unfold_batch,
    unfold_outputs,
)
from sepconv.fused import Operands, is_product
from sepconv.geometry import ConvSpec, output_shape, resolve

__all__ = [
    "add_bias",
    "correlate",
    "depthwise",
    "input_gradient",
    "input_shape",
    "kernel_gradient",
    "mix",
    "ordinary",
    "pixel_axes",
    "shape_of",
    "spatial_size",
]

_X_ONLY = (True, False, False, False)
_KERNEL_ONLY = (False, True, False, False)


def input_shape(spec: ConvSpec, batch: Any, size: Sequence[Any], channels: int) -> tuple[Any, ...]:
    """The shape of an array with this height and width."""
    return (batch, channels, *size) if spec.channels_first else (batch, *size, channels)


def spatial_size(shape: Sequence[Any], spec: ConvSpec) -> tuple[Any, Any]:
    """The height and width of an array with this shape."""
    return (shape[2], shape[3]) if spec.channels_first else (shape[1], shape[2])


# --- The three primitives -------------------------------------------------------------------------


def depthwise(x: Any, kernel: Any, *, spec: ConvSpec) -> Any:
    """Convolves x by a kernel [kh, kw, C, M] to y with C * M channels."""
    return _depthwise.bind(x, kernel, spec=spec)


def input_gradient(dy: Any, kernel: Any, *, spec: ConvSpec, size: tuple[int, int]) -> Any:
    """The gradient for an x of the given height and width."""
    return _input_gradient.bind(dy, kernel, spec=spec, size=size)


def kernel_gradient(x: Any, dy: Any, *, spec: ConvSpec, kernel_size: tuple[int, int]) -> Any:
    """The gradient for a kernel of the given height and width."""
    return _kernel_gradient.bind(x, dy, spec=spec, kernel_size=kernel_size)


def _depthwise_aval(x: Any, kernel: Any, *, spec: ConvSpec) -> Any:
    return output_aval(x, output_shape(spec, x.shape, (kernel.shape, None)))


def _input_gradient_aval(dy: Any, kernel: Any, *, spec: ConvSpec, size: tuple[int, int]) -> Any:
    return output_aval(dy, input_shape(spec, dy.shape[0], size, kernel.shape[2]))


def _kernel_gradient_aval(x: Any, dy: Any, *, spec: ConvSpec, kernel_size: tuple[int, int]) -> Any:
    channels, outputs = (a.shape[spec.channel_axis] for a in (x, dy))
    return output_aval(x, (*kernel_size, channels, outputs // channels), batch=False)


def _depthwise_on_cpu(x: Any, kernel: Any, *, spec: ConvSpec) -> Any:
    y = shape_of(_depthwise_aval, x, kernel, spec=spec)
    return forward_call(Operands(x, kernel), y, spec)


def _input_gradient_on_cpu(dy: Any, kernel: Any, *, spec: ConvSpec, size: tuple[int, int]) -> Any:
    dx = shape_of(_input_gradient_aval, dy, kernel, spec=spec, size=size)
    shapes = (size, kernel.shape)
    return backward_call(None, kernel, None, dy, [dx], spec, *shapes, False, _X_ONLY)[0]


def _kernel_gradient_on_cpu(
    x: Any, dy: Any, *, spec: ConvSpec, kernel_size: tuple[int, int]
) -> Any:
    dk = shape_of(_kernel_gradient_aval, x, dy, spec=spec, kernel_size=kernel_size)
    shapes = (spatial_size(x.shape, spec), dk.shape)
    return backward_call(x, None, None, dy, [dk], spec, *shapes, False, _KERNEL_ONLY)[0]


def shape_of(rule: Any, *operands: Any, **params: Any) -> Any:
    """What a primitive's abstract rule says of its result or results, as XLA's calls are told."""
    avals = rule(*map(typeof, operands), **params)
    return jax.tree.map(lambda aval: jax.ShapeDtypeStruct(aval.shape, aval.dtype), avals)


# --- Matrix products and biases, in JAX's own operations ------------------------------------------


def mix(x: Any, matrix: Any, spec: ConvSpec) -> Any:
    """Multiplies the channels of every pixel by a matrix."""
    y = lax.dot_general(x, matrix, (((spec.channel_axis,), (0,)), ((), ())))
    return jnp.moveaxis(y, 3, 1) if spec.channels_first else y


def pixel_axes(spec: ConvSpec) -> tuple[int, ...]:
    """The axes that are not the channels'."""
    return tuple(axis for axis in range(4) if axis != spec.channel_axis)


def correlate(x: Any, dy: Any, spec: ConvSpec) -> Any:
    """The sum over pixels of the outer products of the channels of x and those of dy."""
    pixels = pixel_axes(spec)
    return lax.dot_general(x, dy, ((pixels, pixels), ((), ())))


def add_bias(y: Any, bias: Any, spec: ConvSpec) -> Any:
    """Adds one value a channel."""
    return y + (bias[:, None, None] if spec.channels_first else bias)


def ordinary(x: Any, kernel: Any, spec: ConvSpec) -> Any:
    """An ordinary convolution by a kernel [kh, kw, C, F]."""
    if is_product(kernel.shape, spec):
        return mix(x, kernel[0, 0], spec)
    return _lax_convolution(x, kernel, spec, 1)


def _lax_convolution(x: Any, kernel: Any, spec: ConvSpec, groups: int) -> Any:
    """JAX's own convolution, by a kernel [kh, kw, C / groups, F]."""
    channels = x.shape[spec.channel_axis]
    pads = resolve(spec, tuple(x.shape), (*kernel.shape[:2], channels, 1)).pads
    layout = "NCHW" if spec.channels_first else "NHWC"
    return lax.conv_general_dilated(
        x,
        kernel,
        (spec.stride_h, spec.stride_w),
        # What follows the last window is cut off: a negative pad there would say the same.
        [(before, max(after, 0)) for before, after in pads],
        rhs_dilation=(spec.dilation_h, spec.dilation_w),
        dimension_numbers=(layout, "HWIO", layout),
        feature_group_count=groups,
    )


# --- The depthwise ones in JAX's own operations, for other devices than a CPU --------------------


def lax_depthwise(x: Any, kernel: Any, *, spec: ConvSpec) -> Any:
    """`depthwise` as a grouped convolution of JAX's."""
    kh, kw, channels, multiplier = kernel.shape
    grouped = kernel.reshape(kh, kw, 1, channels * multiplier)
    return _lax_convolution(x, grouped, spec, channels)


def lax_input_gradient(dy: Any, kernel: Any, *, spec: ConvSpec, size: tuple[int, int]) -> Any:
    """`input_gradient` as the transpose of JAX's convolution."""
    x = shape_of(_input_gradient_aval, dy, kernel, spec=spec, size=size)
    return jax.linear_transpose(lambda x: lax_depthwise(x, kernel, spec=spec), x)(dy)[0]


def lax_kernel_gradient(x: Any, dy: Any, *, spec: ConvSpec, kernel_size: tuple[int, int]) -> Any:
    """`kernel_gradient` as the transpose of JAX's convolution."""
    kernel = shape_of(_kernel_gradient_aval, x, dy, spec=spec, kernel_size=kernel_size)
    return jax.linear_transpose(lambda k: lax_depthwise(x, k, spec=spec), kernel)(dy)[0]


_depthwise = make_primitive(
    "depthwise",
    abstract=_depthwise_aval,
    on_cpu=_depthwise_on_cpu,
    elsewhere=lax_depthwise,
    batch_flags=lambda **_: ((True, False), (True,)),
)
_input_gradient = make_primitive(
    "input_gradient",
    abstract=_input_gradient_aval,
    on_cpu=_input_gradient_on_cpu,
    elsewhere=lax_input_gradient,
    batch_flags=lambda **_: ((True, False), (True,)),
)
_kernel_gradient = make_primitive(
    "kernel_gradient",
    abstract=_kernel_gradient_aval,
    on_cpu=_kernel_gradient_on_cpu,
    elsewhere=lax_kernel_gradient,
    batch_flags=lambda **_: ((True, True), (False,)),
)


# --- Differentiation ------------------------------------------------------------------------------


def _shape(array: Any) -> tuple[int, ...]:
    """The shape of an array, or of one that a transposition is to find the cotangent of."""
    return tuple(getattr(array, "aval", array).shape)


def _kernel_size(kernel: Any) -> tuple[int, int]:
    height, width, _, _ = _shape(kernel)
    return height, width


def _depthwise_for_x(dy: Any, x: Any, kernel: Any, *, spec: ConvSpec) -> Any:
    return input_gradient(dy, kernel, spec=spec, size=spatial_size(_shape(x), spec))


def _depthwise_for_kernel(dy: Any, x: Any, kernel: Any, *, spec: ConvSpec) -> Any:
    return kernel_gradient(x, dy, spec=spec, kernel_size=_kernel_size(kernel))


def _input_gradient_for_dy(ct: Any, dy: Any, kernel: Any, *, spec: ConvSpec, size: Any) -> Any:
    return depthwise(ct, kernel, spec=spec)


def _input_gradient_for_kernel(ct: Any, dy: Any, kernel: Any, *, spec: ConvSpec, size: Any) -> Any:
    return kernel_gradient(ct, dy, spec=spec, kernel_size=_kernel_size(kernel))


def _kernel_gradient_for_x(ct: Any, x: Any, dy: Any, *, spec: ConvSpec, kernel_size: Any) -> Any:
    return input_gradient(dy, ct, spec=spec, size=spatial_size(_shape(x), spec))


def _kernel_gradient_for_dy(ct: Any, x: Any, dy: Any, *, spec: ConvSpec, kernel_size: Any) -> Any:
    return depthwise(x, ct, spec=spec)


ad.defbilinear(_depthwise, _depthwise_for_x, _depthwise_for_kernel)
ad.defbilinear(_input_gradient, _input_gradient_for_dy, _input_gradient_for_kernel)
ad.defbilinear(_kernel_gradient, _kernel_gradient_for_x, _kernel_gradient_for_dy)


# --- vmap -----------------------------------------------------------------------------------------
# A mapped axis becomes part of an axis that the operation has already: of the batch, where the
# kernel is shared; of the multiplier, where x is shared; of the channels otherwise.


def _batch_depthwise(operands: Any, axes: Any, *, spec: ConvSpec) -> Any:
    (x, kernel), (x_axis, kernel_axis) = operands, axes
    if kernel_axis is None:
        y = depthwise(fold_batch(x, x_axis), kernel, spec=spec)
        return unfold_batch(y, x, x_axis), 0
    count = kernel.shape[kernel_axis]
    if x_axis is None:
        y = depthwise(x, fold(kernel, kernel_axis, 3), spec=spec)
        return unfold_outputs(y, count, x.shape[spec.channel_axis], spec), 0
    at = spec.channel_axis
    y = depthwise(fold(x, x_axis, at), fold(kernel, kernel_axis, 2), spec=spec)
    return unfold(y, count, at), 0


def _batch_input_gradient(operands: Any, axes: Any, *, spec: ConvSpec, size: Any) -> Any:
    (dy, kernel), (dy_axis, kernel_axis) = operands, axes
    gradient = functools.partial(input_gradient, spec=spec, size=size)
    if kernel_axis is None:
        return unfold_batch(gradient(fold_batch(dy, dy_axis), kernel), dy, dy_axis), 0
    count = kernel.shape[kernel_axis]
    if dy_axis is None:
        dy, dy_axis = repeat(dy, count), 0
    at = spec.channel_axis
    dx = gradient(fold(dy, dy_axis, at), fold(kernel, kernel_axis, 2))
    return unfold(dx, count, at), 0


def _batch_kernel_gradient(operands: Any, axes: Any, *, spec: ConvSpec, kernel_size: Any) -> Any:
    (x, dy), (x_axis, dy_axis) = operands, axes
    gradient = functools.partial(kernel_gradient, spec=spec, kernel_size=kernel_size)
    at = spec.channel_axis
    if x_axis is None:
        dk = gradient(x, fold_outputs(dy, dy_axis, x.shape[at], spec))
        return unfold(dk, dy.shape[dy_axis], 3), 0
    count = x.shape[x_axis]
    if dy_axis is None:
        dy, dy_axis = repeat(dy, count), 0
    return unfold(gradient(fold(x, x_axis, at), fold(dy, dy_axis, at)), count, 2), 0


batching.primitive_batchers[_depthwise] = _batch_depthwise
batching.primitive_batchers[_input_gradient] = _batch_input_gradient
batching.primitive_batchers[_kernel_gradient] = _batch_kernel_gradient
