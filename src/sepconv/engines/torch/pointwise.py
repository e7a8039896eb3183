"""PyTorch's 1x1 convolution: ``sepconv::pointwise`` and ``sepconv::pointwise_kernel_gradient``.

Each is linear in either of its two tensors, and the derivatives of each are again these two, so
that they are enough for derivatives of any order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sepconv import _native
from sepconv.engines.torch.convolution import CODES, as_array
from sepconv.engines.torch.transforms import add, autograd_kernel, call_below, leading
from sepconv.geometry import ACTIVATIONS

__all__ = ["pointwise"]

_library = torch.library.Library("sepconv", "FRAGMENT")
_TAGS = (torch.Tag.pt2_compliant_tag,)
# The channels of every pixel times a matrix, or times its transpose.
_library.define(
    "pointwise(Tensor x, Tensor matrix, bool channels_first, bool transposed) -> Tensor", tags=_TAGS
)
# The sum over pixels of the outer products of the channels of x and those of dy.
_library.define(
    "pointwise_kernel_gradient(Tensor x, Tensor dy, bool channels_first) -> Tensor", tags=_TAGS
)
_product = torch.ops.sepconv.pointwise.default
_correlation = torch.ops.sepconv.pointwise_kernel_gradient.default


# --- on the CPU ------------------------------------------------------------------------------


def _code(a: Tensor, b: Tensor) -> int:
    """The number of their dtype. A kernel must not read beyond a tensor, so all is checked."""
    if a.dtype != b.dtype or a.dtype not in CODES:
        raise TypeError(
            "Tensors of one dtype, float32, float64, bfloat16 or float16, were expected. "
            f"Received: {a.dtype} and {b.dtype}"
        )
    return CODES[a.dtype]


def _sizes(x: Tensor, first: bool) -> tuple[int, int, int]:
    """Images, pixels of each, channels."""
    if x.dim() != 4:
        raise ValueError(f"A tensor of 4 axes was expected. Received: x.shape={tuple(x.shape)}")
    batch, a, b, c = x.shape
    return (batch, b * c, a) if first else (batch, a * b, c)


def _product_cpu(x: Tensor, matrix: Tensor, channels_first: bool, transposed: bool) -> Tensor:
    code, (images, pixels, channels) = _code(x, matrix), _sizes(x, channels_first)
    if matrix.dim() != 2 or matrix.shape[1 if transposed else 0] != channels:
        raise ValueError(
            f"A matrix for {channels} channels was expected. "
            f"Received: matrix.shape={tuple(matrix.shape)} with transposed={transposed}"
        )
    y = _product_fake(x, matrix, channels_first, transposed)
    x, matrix = x.contiguous(), matrix.contiguous()
    problem = images, pixels, matrix.shape[0], matrix.shape[1], channels_first, code
    a, b, out = x.data_ptr(), matrix.data_ptr(), y.data_ptr()
    if transposed:
        _native.pointwise_backward(*problem, None, b, a, out, None, None)
    else:
        _native.pointwise_forward(*problem, a, b, None, None, out, ACTIVATIONS[None])
    return y


def _correlation_cpu(x: Tensor, dy: Tensor, channels_first: bool) -> Tensor:
    code, sizes, others = _code(x, dy), _sizes(x, channels_first), _sizes(dy, channels_first)
    if sizes[:2] != others[:2]:
        raise ValueError(
            "x and dy must have the same pixels. "
            f"Received: x.shape={tuple(x.shape)}, dy.shape={tuple(dy.shape)}"
        )
    dmatrix = x.new_empty((sizes[2], others[2]))
    x, dy = x.contiguous(), dy.contiguous()
    _native.pointwise_backward(
        *sizes,
        others[2],
        channels_first,
        code,
        x.data_ptr(),
        None,
        dy.data_ptr(),
        None,
        dmatrix.data_ptr(),
        None,
    )
    return dmatrix


# --- on other devices, and shapes alone ------------------------------------------------------


def _last(a: Tensor, first: bool) -> Tensor:
    return a.movedim(-3, -1) if first else a


def _composed_product(x: Tensor, matrix: Tensor, channels_first: bool, transposed: bool) -> Tensor:
    y = _last(x, channels_first) @ (matrix.mT if transposed else matrix)
    return (y.movedim(-1, -3) if channels_first else y).contiguous()


def _composed_correlation(x: Tensor, dy: Tensor, channels_first: bool) -> Tensor:
    x, dy = (_last(a, channels_first).flatten(-4, -2) for a in (x, dy))
    return x.mT @ dy


def _product_fake(x: Tensor, matrix: Tensor, channels_first: bool, transposed: bool) -> Tensor:
    shape = list(x.shape)
    shape[1 if channels_first else 3] = matrix.shape[0 if transposed else 1]
    return x.new_empty(shape)


def _correlation_fake(x: Tensor, dy: Tensor, channels_first: bool) -> Tensor:
    axis = 1 if channels_first else 3
    return x.new_empty((x.shape[axis], dy.shape[axis]))


# --- derivatives -----------------------------------------------------------------------------


class _Bilinear(torch.autograd.Function):
    """What both have in common: they are linear in each of their first two arguments."""

    operation: Any

    @classmethod
    def remember(cls, ctx: Any, a: Tensor, b: Tensor, *rest: bool) -> Tensor:
        ctx.save_for_backward(a, b)
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(a, b)
        ctx.rest = rest
        return call_below(cls.operation, a, b, *rest)

    @classmethod
    def change(cls, ctx: Any, ta: Tensor | None, tb: Tensor | None) -> Tensor | None:
        a, b = ctx.saved_tensors
        return add(
            None if ta is None else cls.operation(ta, b, *ctx.rest),
            None if tb is None else cls.operation(a, tb, *ctx.rest),
        )


class _Product(_Bilinear):
    operation = _product

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, first: bool, transposed: bool) -> Tensor:
        return _Product.remember(ctx, x, matrix, first, transposed)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix = ctx.saved_tensors
        first, transposed = ctx.rest
        dx = dmatrix = None
        if ctx.needs_input_grad[0]:
            dx = _product(dy, matrix, first, not transposed)
        if ctx.needs_input_grad[1]:
            dmatrix = _correlation(*((dy, x) if transposed else (x, dy)), first)
        return dx, dmatrix, None, None

    @staticmethod
    def jvp(ctx: Any, tx: Tensor | None, tmatrix: Tensor | None, *_: None) -> Tensor | None:
        return _Product.change(ctx, tx, tmatrix)


class _Correlation(_Bilinear):
    operation = _correlation

    @staticmethod
    def forward(ctx: Any, x: Tensor, dy: Tensor, first: bool) -> Tensor:
        return _Correlation.remember(ctx, x, dy, first)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, dy = ctx.saved_tensors
        (first,) = ctx.rest
        wanted = ctx.needs_input_grad
        dx = _product(dy, g, first, True) if wanted[0] else None
        return dx, _product(x, g, first, False) if wanted[1] else None, None

    @staticmethod
    def jvp(ctx: Any, tx: Tensor | None, tdy: Tensor | None, _: None) -> Tensor | None:
        return _Correlation.change(ctx, tx, tdy)


# --- vmap ------------------------------------------------------------------------------------


def _map_product(
    info: Any, in_dims: Any, x: Tensor, matrix: Tensor, channels_first: bool, transposed: bool
) -> tuple[Tensor, int]:
    images = leading(x, in_dims[0], info.batch_size)
    if in_dims[1] is None:
        y = _product(images.flatten(0, 1), matrix, channels_first, transposed)
        return y.unflatten(0, images.shape[:2]), 0
    matrices = matrix.movedim(in_dims[1], 0)[:, None, None]
    return _composed_product(images, matrices, channels_first, transposed), 0


def _map_correlation(
    info: Any, in_dims: Any, x: Tensor, dy: Tensor, channels_first: bool
) -> tuple[Tensor, int]:
    x, dy = leading(x, in_dims[0], info.batch_size), leading(dy, in_dims[1], info.batch_size)
    return _composed_correlation(x, dy, channels_first), 0


for _name, _on_cpu, _composed, _fake, _function, _map in (
    ("pointwise", _product_cpu, _composed_product, _product_fake, _Product, _map_product),
    (
        "pointwise_kernel_gradient",
        _correlation_cpu,
        _composed_correlation,
        _correlation_fake,
        _Correlation,
        _map_correlation,
    ),
):
    _library.impl(_name, _on_cpu, "CPU")
    _library.impl(_name, _composed, "CompositeExplicitAutograd")
    _library.impl(_name, autograd_kernel(_function.operation, _function, 2), "Autograd")
    torch.library.register_fake(f"sepconv::{_name}", _fake, lib=_library)
    torch.library.register_vmap(f"sepconv::{_name}", _map, lib=_library)


def pointwise(x: Tensor, kernel: Tensor, *, data_format: str) -> Tensor:
    """Multiplies the channels of every pixel of `x` by the matrix ``kernel[0, 0]``.

    Both are of one dtype, as `as_array` makes of autocast's, and fit each other.
    """
    x, matrix = as_array(x), as_array(kernel).flatten(0, 2)
    first = data_format == "channels_first"
    # A channels_first tensor in channels_last memory is, permuted, a contiguous NHWC tensor.
    if first and not x.is_contiguous():
        nhwc = x.permute(0, 2, 3, 1)
        if nhwc.is_contiguous():
            return _product(nhwc, matrix, False, False).permute(0, 3, 1, 2)
    return _product(x, matrix, first, False)
