"""What flax computes batch normalization of: the moments of each channel, and x normalized by them.

Both are functions of their own, as in flax, so that whatever a layer does with the moments between
them stays as it is: moving ones, gradients that reach them, means over devices. Each has flax's
formula, and derivatives that JAX makes of that formula. On the CPU, in a program that is not spread
over devices or exported, our kernels make the sums over pixels, forward and in gradients: XLA is
slow at them, and writes arrays for them to read. XLA makes the arrays that remain.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from sepconv.engines.jax.calls import (
    batch_norm_sums_call,
    make_primitive,
    moments_call,
    output_aval,
)
from sepconv.engines.jax.refusal import refusal
from sepconv.engines.jax.transforms import composed_batch, composed_jvp, is_zero, no_cotangents

__all__ = ["moments", "normalize", "report_to"]


class _Moments(NamedTuple):
    """The channels' axis, and whether flax subtracts the squared mean from the mean square."""

    axis: int
    fast: bool


class _Normalize(NamedTuple):
    """The channels' axis, and what is added to the variance."""

    axis: int
    epsilon: float


def moments(x: Any, *, axis: int, fast: bool) -> tuple[jax.Array, jax.Array]:
    """The mean and the variance of each channel of x, which has more than one axis."""
    mean, variance = _moments.bind(x, params=_Moments(axis, fast))
    return mean, variance


def normalize(
    x: Any, mean: Any, variance: Any, scale: Any, shift: Any, *, axis: int, epsilon: float
) -> jax.Array:
    """X without its mean, with the deviation `scale` and the mean `shift`; of one dtype all."""
    params = _Normalize(axis, epsilon)
    (y,) = _normalize.bind(x, mean, variance, scale, shift, params=params)
    return y


def _ignore(_: str | None) -> None:
    """For no patch."""


_report: Callable[[str | None], None] = _ignore


def report_to(report: Callable[[str | None], None] | None) -> None:
    """Sets what hears of each normalization that is compiled for the CPU: why it is not ours."""
    global _report
    _report = report or _ignore


# --- Flax's formulas, in its order of operations --------------------------------------------------


def _others(x: Any, axis: int) -> tuple[int, ...]:
    return tuple(i for i in range(x.ndim) if i != axis)


def _along(vector: Any, x: Any, axis: int) -> Any:
    """A number a channel, to be broadcast against x."""
    return jnp.expand_dims(vector, _others(x, axis))


def _flax_moments(x: Any, *, params: _Moments) -> list[Any]:
    axes = _others(x, params.axis)
    mean = x.mean(axes)
    if params.fast:
        variance = jnp.maximum(0.0, jax.lax.square(x).mean(axes) - jax.lax.square(mean))
    else:
        variance = jax.lax.square(x - jnp.expand_dims(mean, axes)).mean(axes)
    return [mean, variance]


def _flax_normalize(
    x: Any, mean: Any, variance: Any, scale: Any, shift: Any, *, params: _Normalize
) -> list[Any]:
    mean, variance, scale, shift = (
        _along(vector, x, params.axis) for vector in (mean, variance, scale, shift)
    )
    return [(x - mean) * (jax.lax.rsqrt(variance + params.epsilon) * scale) + shift]


# --- On the CPU -----------------------------------------------------------------------------------


def _moments_on_cpu(x: Any, *, params: _Moments) -> Sequence[Any]:
    vector = jax.ShapeDtypeStruct((x.shape[params.axis],), x.dtype)
    return moments_call(x, [vector, vector], params.axis)


def _moments_gradients_on_cpu(
    x: Any, mean: Any, _: Any, dmean: Any, dvariance: Any, *, params: _Moments
) -> list[Any]:
    mean, dmean, dvariance = (_along(vector, x, params.axis) for vector in (mean, dmean, dvariance))
    count = x.size // x.shape[params.axis]
    return [(x - mean) * (dvariance * (2 / count)) + dmean / count]


def _normalize_gradients_on_cpu(
    x: Any, mean: Any, variance: Any, scale: Any, _: Any, dy: Any, *, params: _Normalize
) -> list[Any]:
    operands = x, mean, variance, dy
    dscale, dshift = batch_norm_sums_call(operands, [mean, mean], *params)
    inverse = jax.lax.rsqrt(variance + params.epsilon)
    factor = inverse * scale
    dx = dy * _along(factor, x, params.axis)
    return [dx, -factor * dshift, -0.5 * inverse * factor * dscale, dscale, dshift]


# --- The primitives -------------------------------------------------------------------------------


class _Family(NamedTuple):
    """A function as a primitive, and its tangents and its gradients, which are linear, as others.

    Both take the function's operands, the results that are kept, and then tangents or cotangents.
    """

    function: Primitive
    tangents: Primitive
    gradients: Primitive


def _with_derivatives(
    name: str,
    formula: Callable[..., list[Any]],
    operands: int,
    kept: int,
    on_cpu: Callable[..., Sequence[Any]] | None,
    gradients_on_cpu: Callable[..., list[Any]],
    avals: Callable[..., list[Any]],
) -> Primitive:
    """Makes a primitive of a formula, differentiable to any order.

    Args:
        name: of the primitive.
        formula: operands to results, in JAX's operations.
        operands: how many it takes.
        kept: how many of its results, from the first on, its derivatives are given.
        on_cpu: the same by our kernels; None where there is nothing to sum.
        gradients_on_cpu: operands, kept results and all results' gradients to operands' gradients.
        avals: the results' abstract values.
    """

    # These compute again what results they need: a result changes with the operands.
    def tangents(*arrays: Any, params: Any) -> list[Any]:
        primals, moving = arrays[:operands], arrays[-operands:]
        return jax.jvp(functools.partial(formula, params=params), primals, moving)[1]

    def gradients(*arrays: Any, params: Any) -> list[Any]:
        pull = jax.vjp(functools.partial(formula, params=params), *arrays[:operands])[1]
        return list(pull(list(arrays[operands + kept :])))

    def tangent_avals(*arrays: Any, params: Any) -> list[Any]:
        return avals(*arrays[:operands], params=params)

    def gradient_avals(*arrays: Any, params: Any) -> list[Any]:
        return [output_aval(a, a.shape) for a in arrays[:operands]]

    family = _Family(
        *(
            make_primitive(full, abstract=abstract, elsewhere=elsewhere, multiple_results=True)
            for full, abstract, elsewhere in (
                (name, avals, formula),
                (f"{name}_tangents", tangent_avals, tangents),
                (f"{name}_gradients", gradient_avals, gradients),
            )
        )
    )

    def jvp(primals: Sequence[Any], moving: Sequence[Any], *, params: Any) -> Any:
        results = family.function.bind(*primals, params=params)
        arrays = *primals, *results[:kept], *map(ad.instantiate_zeros, moving)
        return results, family.tangents.bind(*arrays, params=params)

    def transpose(
        other: Primitive, cotangents: Sequence[Any], *arrays: Any, params: Any
    ) -> list[Any]:
        """Of tangents or gradients, each of which is the transpose of the other."""
        if all(map(is_zero, cotangents)):
            return no_cotangents(arrays)
        fixed, moving = arrays[: operands + kept], arrays[operands + kept :]
        given = map(ad.instantiate_zeros, cotangents)
        found = other.bind(*fixed, *given, params=params)
        wanted = map(ad.is_undefined_primal, moving)
        return [None] * len(fixed) + [c if w else None for c, w in zip(found, wanted, strict=True)]

    ad.primitive_jvps[family.function] = jvp
    for primitive, other in (
        (family.tangents, family.gradients),
        (family.gradients, family.tangents),
    ):
        ad.primitive_transposes[primitive] = functools.partial(transpose, other)
    ad.primitive_jvps[family.tangents] = functools.partial(composed_jvp, tangents)
    ad.primitive_jvps[family.gradients] = functools.partial(composed_jvp, gradients)
    for primitive, composed in zip(family, (formula, tangents, gradients), strict=True):
        batching.primitive_batchers[primitive] = functools.partial(composed_batch, composed)
    _lower_on_cpu(family.function, on_cpu, formula)
    _lower_on_cpu(family.gradients, gradients_on_cpu, gradients)
    return family.function


def _lower_on_cpu(
    primitive: Primitive, on_cpu: Callable[..., Any] | None, formula: Callable[..., Any]
) -> None:
    """Gives a primitive a rule for the CPU; reports what has no sums of its own, the last step."""

    def rule(context: Any, *operands: Any, **params: Any) -> Any:
        reason = refusal(context, params)
        if on_cpu is None:
            _report(reason)
        call = formula if on_cpu is None or reason else on_cpu
        return mlir.lower_fun(functools.partial(call, **params), True)(context, *operands)

    mlir.register_lowering(primitive, rule, platform="cpu")


def _moments_avals(x: Any, *, params: _Moments) -> list[Any]:
    return [output_aval(x, (x.shape[params.axis],), batch=False) for _ in range(2)]


def _normalize_avals(x: Any, *_: Any, params: _Normalize) -> list[Any]:
    return [output_aval(x, x.shape)]


_moments = _with_derivatives(
    "flax_moments", _flax_moments, 1, 2, _moments_on_cpu, _moments_gradients_on_cpu, _moments_avals
)
_normalize = _with_derivatives(
    "flax_normalize", _flax_normalize, 5, 0, None, _normalize_gradients_on_cpu, _normalize_avals
)
