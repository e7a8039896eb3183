"""The 1x1 convolution of JAX arrays, forward and backward.

Two primitives are linear in either of their operands: the product with a matrix and the
correlation of two arrays. The transpose of each is another of them, so derivatives of any order
consist of these alone. Where both gradients of a product are wanted, a third one gives them in one
call: what follows it then follows every use of the matrix, and XLA may update that in place instead
of copying it first.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
from jax.interpreters import ad, batching

from sepconv.engines.jax.calls import (
    align,
    forward_call,
    make_primitive,
    output_aval,
    pointwise_backward_call,
)
from sepconv.engines.jax.composed import correlate, mix, shape_of
from sepconv.engines.jax.transforms import (
    composed_batch,
    composed_jvp,
    fold_batch,
    is_zero,
    no_cotangents,
    unfold_batch,
)
from sepconv.fused import Operands
from sepconv.geometry import ConvSpec, conv_spec

__all__ = ["pointwise"]


def pointwise(x: Any, kernel: Any, *, data_format: str) -> jax.Array:
    """Multiplies the channels of every pixel of `x` by the matrix ``kernel[0, 0]``.

    Both are of one dtype and fit each other.
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
    shape[spec.channel_axis] = matrix.shape[0 if transposed else 1]
    return output_aval(x, shape)


def _correlation_aval(x: Any, dy: Any, *, spec: ConvSpec) -> Any:
    return output_aval(x, (x.shape[spec.channel_axis], dy.shape[spec.channel_axis]), batch=False)


def _product_on_cpu(x: Any, matrix: Any, *, spec: ConvSpec, transposed: bool) -> Any:
    y = shape_of(_product_aval, x, matrix, spec=spec, transposed=transposed)
    if transposed:
        return pointwise_backward_call(None, matrix, x, [y], matrix.shape[0], spec)[0]
    return forward_call(Operands(x, pointwise_kernel=matrix), y, spec)


def _correlation_on_cpu(x: Any, dy: Any, *, spec: ConvSpec) -> Any:
    dmatrix = shape_of(_correlation_aval, x, dy, spec=spec)
    return pointwise_backward_call(x, None, dy, [dmatrix], x.shape[spec.channel_axis], spec)[0]


def _composed_product(x: Any, matrix: Any, *, spec: ConvSpec, transposed: bool) -> Any:
    return mix(x, matrix.T if transposed else matrix, spec)


def _composed_tangent(x: Any, matrix: Any, dx: Any, dmatrix: Any, *, params: ConvSpec) -> Any:
    along_x = _mix(dx, matrix, spec=params, transposed=False)
    return along_x + _mix(x, dmatrix, spec=params, transposed=False)


def _tangent_aval(x: Any, matrix: Any, dx: Any, dmatrix: Any, *, params: ConvSpec) -> Any:
    return _product_aval(dx, matrix, spec=params, transposed=False)


def _composed_gradients(x: Any, matrix: Any, dy: Any, *, params: ConvSpec) -> list[Any]:
    return [_mix(dy, matrix, spec=params, transposed=True), _correlate(x, dy, spec=params)]


def _gradients_avals(x: Any, matrix: Any, dy: Any, *, params: ConvSpec) -> list[Any]:
    dx = _product_aval(dy, matrix, spec=params, transposed=True)
    return [dx, _correlation_aval(x, dy, spec=params)]


def _gradients_on_cpu(x: Any, matrix: Any, dy: Any, *, params: ConvSpec) -> Sequence[Any]:
    results = shape_of(_gradients_avals, x, matrix, dy, params=params)
    return pointwise_backward_call(x, matrix, dy, results, x.shape[params.channel_axis], params)


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
_tangent = make_primitive("pointwise_tangent", abstract=_tangent_aval, elsewhere=_composed_tangent)
_gradients = make_primitive(
    "pointwise_gradients",
    abstract=_gradients_avals,
    on_cpu=_gradients_on_cpu,
    elsewhere=_composed_gradients,
    batch_flags=lambda **_: ((True, False, True), (True, False)),
    multiple_results=True,
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


def _product_jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, spec: ConvSpec, transposed: bool
) -> Any:
    """The bilinear rule, but for a tangent of both operands, which is one primitive."""
    if transposed or any(map(is_zero, tangents)):
        return _bilinear_jvp(primals, tangents, spec=spec, transposed=transposed)
    return _mix(*primals, spec=spec, transposed=False), _tangent.bind(
        *primals, *tangents, params=spec
    )


def _tangent_transpose(
    dy: Any, x: Any, matrix: Any, dx: Any, dmatrix: Any, *, params: ConvSpec
) -> list[Any]:
    if is_zero(dy):
        return no_cotangents((x, matrix, dx, dmatrix))
    wanted = [ad.is_undefined_primal(t) for t in (dx, dmatrix)]
    if all(wanted):
        return [None, None, *_gradients.bind(x, matrix, dy, params=params)]
    found = _mix(dy, matrix, spec=params, transposed=True) if wanted[0] else None
    return [None, None, found, _correlate(x, dy, spec=params) if wanted[1] else None]


def _gradients_transpose(
    cotangents: Sequence[Any], x: Any, matrix: Any, dy: Any, *, params: ConvSpec
) -> list[Any]:
    if all(map(is_zero, cotangents)):
        return no_cotangents((x, matrix, dy))
    dx, dmatrix = cotangents
    if not any(map(is_zero, cotangents)):
        return [None, None, _tangent.bind(x, matrix, dx, dmatrix, params=params)]
    operands = (x, dmatrix) if is_zero(dx) else (dx, matrix)
    return [None, None, _mix(*operands, spec=params, transposed=False)]


ad.defbilinear(_product, _product_for_x, _product_for_matrix)
_bilinear_jvp = ad.primitive_jvps[_product]
ad.primitive_jvps[_product] = _product_jvp
ad.defbilinear(_correlation, _correlation_for_x, _correlation_for_dy)
ad.primitive_jvps[_tangent] = functools.partial(composed_jvp, _composed_tangent)
ad.primitive_jvps[_gradients] = functools.partial(composed_jvp, _composed_gradients)
ad.primitive_transposes[_tangent] = _tangent_transpose
ad.primitive_transposes[_gradients] = _gradients_transpose


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
batching.primitive_batchers[_tangent] = functools.partial(composed_batch, _composed_tangent)
batching.primitive_batchers[_gradients] = functools.partial(composed_batch, _composed_gradients)
