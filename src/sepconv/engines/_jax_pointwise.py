"""The 1x1 convolution of JAX arrays, forward and backward, by primitives of two kinds.

Each is linear in either of its two operands, and the transpose of each is another of them, so
derivatives of any order consist of these alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
from jax.interpreters import ad, batching

from sepconv.engines._jax_bilinear import channel_axis, fold_batch, shape_of, unfold_batch
from sepconv.engines._jax_ffi import (
    align,
    forward_call,
    make_primitive,
    output_aval,
    pointwise_backward_call,
)
from sepconv.engines.jax import correlate, mix
from sepconv.geometry import ConvSpec, conv_spec

__all__ = ["pointwise"]


def pointwise(x: Any, kernel: Any, *, data_format: str) -> jax.Array:
    """Multiplies the channels of every pixel of `x` by the matrix ``kernel[0, 0]``.

    Both are of float32 or of float64, and fit each other.
    """
    x, matrix = align(x, kernel.reshape(kernel.shape[2:]))
    return _mix(x, matrix, spec=conv_spec(data_format=data_format), transposed=False)


def _mix(x: Any, matrix: Any, *, spec: ConvSpec, transposed: bool) -> Any:
    """Multiplies the channels of x by a matrix or by its transpose."""
    return _product.bind(x, matrix, spec=spec, transposed=transposed)


def _correlate(x: Any, dy: Any, *, spec: ConvSpec) -> Any:
    """The sum over pixels of the outer products of the channels of x and those of dy."""
    return _correlation.bind(x, dy, spec=spec)


# --- The primitives, on the CPU and in JAX's own operations ---------------------------------------


def _product_aval(x: Any, matrix: Any, *, spec: ConvSpec, transposed: bool) -> Any:
    shape = list(x.shape)
    shape[channel_axis(spec)] = matrix.shape[0 if transposed else 1]
    return output_aval(x, shape)


def _correlation_aval(x: Any, dy: Any, *, spec: ConvSpec) -> Any:
    return output_aval(x, (x.shape[channel_axis(spec)], dy.shape[channel_axis(spec)]), batch=False)


def _product_on_cpu(x: Any, matrix: Any, *, spec: ConvSpec, transposed: bool) -> Any:
    y = shape_of(_product_aval, x, matrix, spec=spec, transposed=transposed)
    if transposed:
        return pointwise_backward_call(None, matrix, x, y, matrix.shape[0], spec)
    return forward_call(x, None, matrix, None, y, spec, 0)


def _correlation_on_cpu(x: Any, dy: Any, *, spec: ConvSpec) -> Any:
    dmatrix = shape_of(_correlation_aval, x, dy, spec=spec)
    return pointwise_backward_call(x, None, dy, dmatrix, x.shape[channel_axis(spec)], spec)


def _composed_product(x: Any, matrix: Any, *, spec: ConvSpec, transposed: bool) -> Any:
    return mix(x, matrix.T if transposed else matrix, spec)


_product = make_primitive(
    "pointwise",
    abstract=_product_aval,
    on_cpu=_product_on_cpu,
    elsewhere=_composed_product,
    batch_flags=lambda **_: ((True, False), (True,)),
)
_correlation = make_primitive(
    "pointwise_kernel_gradient",
    abstract=_correlation_aval,
    on_cpu=_correlation_on_cpu,
    elsewhere=correlate,
    batch_flags=lambda **_: ((True, True), (False,)),
)


# --- Differentiation ------------------------------------------------------------------------------


def _product_for_x(ct: Any, x: Any, matrix: Any, *, spec: ConvSpec, transposed: bool) -> Any:
    return _mix(ct, matrix, spec=spec, transposed=not transposed)


def _product_for_matrix(ct: Any, x: Any, matrix: Any, *, spec: ConvSpec, transposed: bool) -> Any:
    return _correlate(*((ct, x) if transposed else (x, ct)), spec=spec)


def _correlation_for_x(ct: Any, x: Any, dy: Any, *, spec: ConvSpec) -> Any:
    return _mix(dy, ct, spec=spec, transposed=True)


def _correlation_for_dy(ct: Any, x: Any, dy: Any, *, spec: ConvSpec) -> Any:
    return _mix(x, ct, spec=spec, transposed=False)


ad.defbilinear(_product, _product_for_x, _product_for_matrix)
ad.defbilinear(_correlation, _correlation_for_x, _correlation_for_dy)


# --- vmap -----------------------------------------------------------------------------------------


def _batch_product(operands: Sequence[Any], axes: Sequence[Any], **params: Any) -> Any:
    (x, matrix), (x_axis, matrix_axis) = operands, axes
    if matrix_axis is None:
        return unfold_batch(_mix(fold_batch(x, x_axis), matrix, **params), x, x_axis), 0
    composed: Any = functools.partial(_composed_product, **params)
    return jax.vmap(composed, tuple(axes))(x, matrix), 0


def _batch_correlation(operands: Sequence[Any], axes: Sequence[Any], *, spec: ConvSpec) -> Any:
    composed: Any = functools.partial(correlate, spec=spec)
    return jax.vmap(composed, tuple(axes))(*operands), 0


batching.primitive_batchers[_product] = _batch_product
batching.primitive_batchers[_correlation] = _batch_correlation
