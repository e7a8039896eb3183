"""The 1x1 convolution of JAX arrays, forward and backward, by primitives of two kinds.

Each is linear in either of its two operands, and the transpose of each is another of them, so
derivatives of any order consist of these alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad, batching

from sepconv.engines._jax_bilinear import fold_batch, unfold_batch
from sepconv.engines._jax_ffi import (
    align,
    forward_call,
    make_primitive,
    output_aval,
    pointwise_backward_call,
)
from sepconv.geometry import conv_spec

__all__ = ["pointwise"]


def pointwise(x: Any, kernel: Any, *, data_format: str) -> jax.Array:
    """Multiplies the channels of every pixel of `x` by the matrix ``kernel[0, 0]``.

    Both are of float32 or of float64, and fit each other.
    """
    x, matrix = align(x, kernel.reshape(kernel.shape[2:]))
    return _mix(x, matrix, first=data_format == "channels_first", transposed=False)


def _mix(x: Any, matrix: Any, *, first: bool, transposed: bool) -> Any:
    """Multiplies the channels of x by a matrix or by its transpose."""
    return _product.bind(x, matrix, first=first, transposed=transposed)


def _correlate(x: Any, dy: Any, *, first: bool) -> Any:
    """The sum over pixels of the outer products of the channels of x and those of dy."""
    return _correlation.bind(x, dy, first=first)


def _axis(first: bool) -> int:
    return 1 if first else 3


# --- The primitives, on the CPU and in JAX's own operations ---------------------------------------


def _product_aval(x: Any, matrix: Any, *, first: bool, transposed: bool) -> Any:
    shape = list(x.shape)
    shape[_axis(first)] = matrix.shape[0 if transposed else 1]
    return output_aval(x, shape)


def _correlation_aval(x: Any, dy: Any, *, first: bool) -> Any:
    return output_aval(x, (x.shape[_axis(first)], dy.shape[_axis(first)]), batch=False)


def _result(rule: Any, *operands: Any, **params: Any) -> Any:
    aval = rule(*map(jax.typeof, operands), **params)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def _product_on_cpu(x: Any, matrix: Any, *, first: bool, transposed: bool) -> Any:
    y = _result(_product_aval, x, matrix, first=first, transposed=transposed)
    if transposed:
        return pointwise_backward_call(None, matrix, x, y, matrix.shape[0], first)
    spec = conv_spec(data_format="channels_first" if first else "channels_last")
    return forward_call(x, None, matrix, None, y, spec, 0)


def _correlation_on_cpu(x: Any, dy: Any, *, first: bool) -> Any:
    dmatrix = _result(_correlation_aval, x, dy, first=first)
    return pointwise_backward_call(x, None, dy, dmatrix, x.shape[_axis(first)], first)


def _composed_product(x: Any, matrix: Any, *, first: bool, transposed: bool) -> Any:
    contracted = (_axis(first),), (1 if transposed else 0,)
    y = lax.dot_general(x, matrix, (contracted, ((), ())))
    return jnp.moveaxis(y, 3, 1) if first else y


def _composed_correlation(x: Any, dy: Any, *, first: bool) -> Any:
    pixels = tuple(axis for axis in range(4) if axis != _axis(first))
    return lax.dot_general(x, dy, ((pixels, pixels), ((), ())))


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
    elsewhere=_composed_correlation,
    batch_flags=lambda **_: ((True, True), (False,)),
)


# --- Differentiation ------------------------------------------------------------------------------


def _product_for_x(ct: Any, x: Any, matrix: Any, *, first: bool, transposed: bool) -> Any:
    return _mix(ct, matrix, first=first, transposed=not transposed)


def _product_for_matrix(ct: Any, x: Any, matrix: Any, *, first: bool, transposed: bool) -> Any:
    return _correlate(*((ct, x) if transposed else (x, ct)), first=first)


def _correlation_for_x(ct: Any, x: Any, dy: Any, *, first: bool) -> Any:
    return _mix(dy, ct, first=first, transposed=True)


def _correlation_for_dy(ct: Any, x: Any, dy: Any, *, first: bool) -> Any:
    return _mix(x, ct, first=first, transposed=False)


ad.defbilinear(_product, _product_for_x, _product_for_matrix)
ad.defbilinear(_correlation, _correlation_for_x, _correlation_for_dy)


# --- vmap -----------------------------------------------------------------------------------------


def _batch_product(operands: Sequence[Any], axes: Sequence[Any], **params: bool) -> Any:
    (x, matrix), (x_axis, matrix_axis) = operands, axes
    if matrix_axis is None:
        return unfold_batch(_mix(fold_batch(x, x_axis), matrix, **params), x, x_axis), 0
    composed: Any = functools.partial(_composed_product, **params)
    return jax.vmap(composed, tuple(axes))(x, matrix), 0


def _batch_correlation(operands: Sequence[Any], axes: Sequence[Any], *, first: bool) -> Any:
    composed: Any = functools.partial(_composed_correlation, first=first)
    return jax.vmap(composed, tuple(axes))(*operands), 0


batching.primitive_batchers[_product] = _batch_product
batching.primitive_batchers[_correlation] = _batch_correlation
