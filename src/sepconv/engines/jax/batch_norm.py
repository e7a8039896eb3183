"""Batch normalization of JAX arrays in training, forward and backward.

The derivative of y in x is a symmetric matrix, so the tangent of y and the gradients are computed
alike. The mean and the variance that come with y are for the moving ones: they carry no gradient.

Numbers of channels are float32 where x is of a half type: everything is computed in float32 then,
and the result and its derivatives in x are rounded once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.interpreters import ad, batching

from sepconv.engines.jax.calls import (
    align,
    batch_norm_sums_call,
    make_primitive,
    moments_call,
    output_aval,
)
from sepconv.engines.jax.compat import typeof
from sepconv.engines.jax.composed import shape_of
from sepconv.engines.jax.transforms import composed_batch, composed_jvp, is_zero, no_cotangents

__all__ = ["batch_norm"]


class _Params(NamedTuple):
    """The arguments that are no arrays: the channels' axis, and what is added to the variance."""

    axis: int
    epsilon: float


def batch_norm(
    x: Any, gamma: Any, beta: Any, *, axis: int, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes each channel of `x` over all other axes.

    Args:
        x: of any rank, of float32, float64 or a half type.
        gamma: [channels], of its dtype, or float32 for a half type: the deviation of a channel of
            the result.
        beta: [channels], of the dtype of gamma: its mean.
        axis: the one of the channels, 0 or more.
        epsilon: added to the variance.

    Returns:
        The result, and the mean and variance of each channel of x.
    """
    y, mean, variance = _forward.bind(*align(x, gamma, beta), params=_Params(axis, epsilon))
    return y, mean, variance


# --- In JAX's own operations ----------------------------------------------------------------------


def _real(a: Any) -> Any:
    """An array in the dtype that it is computed in."""
    return a.astype(_real_dtype(a))


def _real_dtype(a: Any) -> Any:
    return jnp.promote_types(a.dtype, jnp.float32)


def _sums(a: Any, params: _Params) -> Any:
    return jnp.sum(a, [i for i in range(a.ndim) if i != params.axis])


def _along(vector: Any, x: Any, params: _Params) -> Any:
    """A number a channel, to be broadcast against x."""
    return jnp.expand_dims(vector, [i for i in range(x.ndim) if i != params.axis])


def _moments(x: Any, params: _Params) -> tuple[Any, Any]:
    x = _real(x)
    count = x.size // x.shape[params.axis]
    mean = _sums(x, params) / count
    centred = x - _along(mean, x, params)
    return mean, _sums(centred * centred, params) / count


def _normal(x: Any, mean: Any, variance: Any, params: _Params) -> tuple[Any, Any]:
    """Of x: itself without mean and deviation, and the inverse deviation."""
    inverse = jax.lax.rsqrt(variance + params.epsilon)
    return (_real(x) - _along(mean, x, params)) * _along(inverse, x, params), inverse


def _result(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, params: _Params) -> Any:
    normal, _ = _normal(x, mean, variance, params)
    return (normal * _along(gamma, x, params) + _along(beta, x, params)).astype(x.dtype)


def _projection(v: Any, normal: Any, factor: Any, along: Any, total: Any, params: _Params) -> Any:
    """The derivative in x times `v`, given the sums of v * normal and of v; not rounded."""
    count = v.size // v.shape[params.axis]
    rest = _real(v) - _along(total / count, v, params) - normal * _along(along / count, v, params)
    return rest * _along(factor, v, params)


def _composed_forward(x: Any, gamma: Any, beta: Any, *, params: _Params) -> list[Any]:
    moments = _moments(x, params)
    return [_result(x, gamma, beta, *moments, params), *map(jax.lax.stop_gradient, moments)]


# Both are given mean and variance, and compute them again: they change with x.
def _composed_tangent(
    x: Any,
    gamma: Any,
    _mean: Any,
    _variance: Any,
    tx: Any,
    tgamma: Any,
    tbeta: Any,
    *,
    params: _Params,
) -> Any:
    normal, inverse = _normal(x, *_moments(x, params), params)
    tx = _real(tx)
    sums = _sums(tx * normal, params), _sums(tx, params)
    change = _projection(tx, normal, gamma * inverse, *sums, params)
    return (change + normal * _along(tgamma, x, params) + _along(tbeta, x, params)).astype(x.dtype)


def _composed_gradients(
    x: Any, gamma: Any, _mean: Any, _variance: Any, dy: Any, *, params: _Params
) -> list[Any]:
    normal, inverse = _normal(x, *_moments(x, params), params)
    dy = _real(dy)
    sums = _sums(dy * normal, params), _sums(dy, params)
    return [_projection(dy, normal, gamma * inverse, *sums, params).astype(x.dtype), *sums]


# --- The primitives -------------------------------------------------------------------------------
#
# On the CPU our kernels make the sums, which XLA is slow at; XLA makes the arrays, together with
# what comes before and after them, such as an activation.


def _forward_avals(x: Any, *_: Any, params: _Params) -> list[Any]:
    vector = output_aval(x, (x.shape[params.axis],), batch=False).update(dtype=_real_dtype(x))
    return [output_aval(x, x.shape), vector, vector]


def _forward_on_cpu(x: Any, gamma: Any, beta: Any, *, params: _Params) -> list[Any]:
    mean, variance = moments_call(x, shape_of(_forward_avals, x, params=params)[1:], params.axis)
    return [_result(x, gamma, beta, mean, variance, params), mean, variance]


def _tangent_aval(x: Any, *_: Any, params: _Params) -> Any:
    return output_aval(x, x.shape)


def _gradients_on_cpu(
    x: Any, gamma: Any, mean: Any, variance: Any, dy: Any, *, params: _Params
) -> list[Any]:
    operands = x, mean, variance, dy
    results = shape_of(_forward_avals, x, params=params)[1:]
    dgamma, dbeta = batch_norm_sums_call(operands, results, *params)
    normal, inverse = _normal(x, mean, variance, params)
    dx = _projection(dy, normal, gamma * inverse, dgamma, dbeta, params)
    return [dx.astype(x.dtype), dgamma, dbeta]


_forward = make_primitive(
    "batch_norm",
    abstract=_forward_avals,
    on_cpu=_forward_on_cpu,
    elsewhere=_composed_forward,
    multiple_results=True,
)
_tangent = make_primitive("batch_norm_tangent", abstract=_tangent_aval, elsewhere=_composed_tangent)
_gradients = make_primitive(
    "batch_norm_gradients",
    abstract=_forward_avals,
    on_cpu=_gradients_on_cpu,
    elsewhere=_composed_gradients,
    multiple_results=True,
)


# --- Differentiation and vmap ---------------------------------------------------------------------


def _forward_jvp(primals: Sequence[Any], tangents: Sequence[Any], *, params: _Params) -> Any:
    _, mean, variance = outputs = _forward.bind(*primals, params=params)
    x, gamma, _ = primals
    moving = map(ad.instantiate_zeros, tangents)
    change = _tangent.bind(x, gamma, mean, variance, *moving, params=params)
    still = [ad.Zero(typeof(a).to_tangent_aval()) for a in (mean, variance)]
    return outputs, [change, *still]


def _tangent_transpose(ct: Any, *operands: Any, params: _Params) -> list[Any]:
    if is_zero(ct):
        return no_cotangents(operands)
    found = _gradients.bind(*operands[:4], ct, params=params)
    wanted = map(ad.is_undefined_primal, operands[4:])
    return [None] * 4 + [g if w else None for g, w in zip(found, wanted, strict=True)]


def _gradients_transpose(cotangents: Sequence[Any], *operands: Any, params: _Params) -> list[Any]:
    if all(map(is_zero, cotangents)):
        return no_cotangents(operands)
    moving = map(ad.instantiate_zeros, cotangents)
    return [None] * 4 + [_tangent.bind(*operands[:4], *moving, params=params)]


ad.primitive_jvps[_forward] = _forward_jvp
for _primitive, _composed in ((_tangent, _composed_tangent), (_gradients, _composed_gradients)):
    ad.primitive_jvps[_primitive] = functools.partial(composed_jvp, _composed)
    batching.primitive_batchers[_primitive] = functools.partial(composed_batch, _composed)
batching.primitive_batchers[_forward] = functools.partial(composed_batch, _composed_forward)
ad.primitive_transposes[_tangent] = _tangent_transpose
ad.primitive_transposes[_gradients] = _gradients_transpose
