"""The derivatives of a convolution on JAX arrays, each one call.

The tangent of a block that is a convolution and no more is a primitive that is linear in the
operands' tangents, and the transpose of that one is a primitive that computes all wanted gradients
in one call, so `jax.grad` costs one fused pass each way. Whatever else is asked of the two (further
derivatives, batching, another platform than the CPU) follows from what they are composed of: the
bilinear primitives of a depthwise convolution and a matrix product.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.interpreters import ad, batching

from sepconv.engines.jax.calls import backward_call, make_primitive, output_aval
from sepconv.engines.jax.composed import (
    add_bias,
    correlate,
    depthwise,
    input_gradient,
    input_shape,
    kernel_gradient,
    mix,
    pixel_axes,
    shape_of,
    spatial_size,
)
from sepconv.engines.jax.transforms import (
    composed_batch,
    composed_jvp,
    is_zero,
    no_cotangents,
)
from sepconv.fused import BlockSpec, Operands
from sepconv.geometry import ACTIVATIONS, ConvSpec, output_shape

__all__ = ["depthwise_gradients", "tangent", "transpose"]


class _Linear(NamedTuple):
    """The parameters of the tangent and of the backward pass.

    `wanted` says for x, depthwise_kernel, pointwise_kernel and bias whether it has a tangent (of
    the tangent primitive) or its gradient is asked for (of the backward primitive).
    """

    spec: ConvSpec
    size: tuple[Any, Any]
    kernel_shape: tuple[int, int, int, int]
    separable: bool
    wanted: tuple[bool, bool, bool, bool]

    @property
    def given(self) -> tuple[bool, bool, bool]:
        """Which of x, depthwise_kernel and pointwise_kernel come as operands: those needed."""
        x, kernel, pointwise, _ = self.wanted
        return kernel or pointwise, x or pointwise, self.separable and (x or kernel)

    def split(self, operands: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """([x, depthwise_kernel, pointwise_kernel] with None for what is not given, the rest)."""
        rest = list(operands)
        return [rest.pop(0) if given else None for given in self.given], rest

    def join(self, x: Any, kernel: Any, pointwise: Any) -> list[Any]:
        """Those of the three that are operands."""
        return [a for a, g in zip((x, kernel, pointwise), self.given, strict=True) if g]

    def spread(self, values: Sequence[Any]) -> list[Any]:
        """Values for the wanted as a list of four with None for the others."""
        rest = list(values)
        return [rest.pop(0) if wanted else None for wanted in self.wanted]

    def of(self, wanted: Iterable[bool]) -> _Linear:
        """The same parameters for other wanted gradients."""
        x, kernel, pointwise, bias = wanted
        return self._replace(wanted=(x, kernel, pointwise, bias))


# --- What the fused primitives are composed of ----------------------------------------------------


def _add(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a + b


def _active(y: Any, activation: int) -> Any:
    """Where the activation of a result y passes tangents on; None where it always does."""
    if activation == ACTIVATIONS["relu"]:
        return y > 0
    if activation == ACTIVATIONS["relu6"]:
        return (y > 0) & (y < 6)
    return None


def _composed_tangent(*operands: Any, params: _Linear) -> Any:
    (x, kernel, pointwise), tangents = params.split(operands)
    dx, dkernel, dpointwise, dbias = params.spread(tangents)
    spec = params.spec
    t = None
    if dx is not None:
        t = depthwise(dx, kernel, spec=spec)
    if dkernel is not None:
        t = _add(t, depthwise(x, dkernel, spec=spec))
    if params.separable:
        t = None if t is None else mix(t, pointwise[0, 0], spec)
        if dpointwise is not None:
            t = _add(t, mix(depthwise(x, kernel, spec=spec), dpointwise[0, 0], spec))
    return t if dbias is None else add_bias(t, dbias, spec)


def _composed_backward(*operands: Any, params: _Linear) -> list[Any]:
    (x, kernel, pointwise), (dy,) = params.split(operands)
    spec = params.spec
    dmiddle = dy if pointwise is None else mix(dy, pointwise[0, 0].T, spec)
    gradients = []
    if params.wanted[0]:
        gradients.append(input_gradient(dmiddle, kernel, spec=spec, size=params.size))
    if params.wanted[1]:
        size = params.kernel_shape[:2]
        gradients.append(kernel_gradient(x, dmiddle, spec=spec, kernel_size=size))
    if params.wanted[2]:
        middle = depthwise(x, kernel, spec=spec)
        gradients.append(correlate(middle, dy, spec)[None, None])
    if params.wanted[3]:
        gradients.append(dy.sum(pixel_axes(spec)))
    return gradients


# --- Shapes and calls -----------------------------------------------------------------------------


def _tangent_aval(*operands: Any, params: _Linear) -> Any:
    (x, _, pointwise), tangents = params.split(operands)
    dx, _, dpointwise, _ = params.spread(tangents)
    like = x if dx is None else dx
    _, _, channels, multiplier = params.kernel_shape
    pointwise_shape = None
    if params.separable:
        filters = (dpointwise if pointwise is None else pointwise).shape[3]
        pointwise_shape = 1, 1, channels * multiplier, filters
    x_shape = input_shape(params.spec, like.shape[0], params.size, channels)
    kernel_shapes = params.kernel_shape, pointwise_shape
    return output_aval(like, output_shape(params.spec, x_shape, kernel_shapes))


def _backward_avals(*operands: Any, params: _Linear) -> list[Any]:
    dy = operands[-1]
    _, _, channels, multiplier = params.kernel_shape
    filters = dy.shape[params.spec.channel_axis]
    shapes = (
        input_shape(params.spec, dy.shape[0], params.size, channels),
        params.kernel_shape,
        (1, 1, channels * multiplier, filters),
        (filters,),
    )
    return [
        output_aval(dy, shape, batch=i == 0)
        for i, (shape, wanted) in enumerate(zip(shapes, params.wanted, strict=True))
        if wanted
    ]


def _backward_on_cpu(*operands: Any, params: _Linear) -> Sequence[Any]:
    (x, kernel, pointwise), (dy,) = params.split(operands)
    results = shape_of(_backward_avals, dy, params=params)
    return backward_call(
        x,
        kernel,
        pointwise,
        dy,
        results,
        params.spec,
        params.size,
        params.kernel_shape,
        params.separable,
        params.wanted,
    )


_tangent = make_primitive("tangent", abstract=_tangent_aval, elsewhere=_composed_tangent)
_backward = make_primitive(
    "backward",
    abstract=_backward_avals,
    on_cpu=_backward_on_cpu,
    elsewhere=_composed_backward,
    batch_flags=lambda params: (
        (*params.join(True, False, False), True),
        tuple(i == 0 for i, wanted in enumerate(params.wanted) if wanted),
    ),
    multiple_results=True,
)


# --- Differentiation ------------------------------------------------------------------------------


def _apply_tangent(
    params: _Linear, x: Any, kernel: Any, pointwise: Any, tangents: Sequence[Any], y: Any
) -> Any:
    """The tangent of y from those of the operands that have one; `y` has its shape and dtype."""
    params = params.of(not (t is None or is_zero(t)) for t in tangents)
    if not any(params.wanted[:3]):
        return add_bias(jnp.zeros(y.shape, y.dtype), tangents[3], params.spec)
    present = [t for t, wanted in zip(tangents, params.wanted, strict=True) if wanted]
    return _tangent.bind(*params.join(x, kernel, pointwise), *present, params=params)


def tangent(block: BlockSpec, operands: Operands, tangents: Operands, y: Any) -> Any:
    """The tangent of a convolution's result y, from those of its operands."""
    x, kernel, pointwise, _ = _of_convolution(operands)
    size = spatial_size(tuple(x.shape), block.spec)
    linear = _Linear(block.spec, size, tuple(kernel.shape), pointwise is not None, (False,) * 4)
    t = _apply_tangent(linear, x, kernel, pointwise, _of_convolution(tangents), y)
    active = _active(y, block.activation)
    return t if active is None else jnp.where(active, t, 0)


def transpose(block: BlockSpec, operands: Operands, dy: Any) -> Operands:
    """The cotangents of a convolution that is linear in what is undefined of its operands.

    That is one of x and the kernels, and the bias if there is one.
    """
    given = _of_convolution(operands)
    x, kernel, pointwise, bias = given
    wanted = [a is not None and ad.is_undefined_primal(a) for a in given]
    if block.activation or sum(wanted[:3]) != 1 or wanted[3] != (bias is not None):
        raise NotImplementedError("The convolution is not linear in the given operands.")
    shape = tuple(getattr(x, "aval", x).shape), tuple(getattr(kernel, "aval", kernel).shape)
    size = spatial_size(shape[0], block.spec)
    linear = _Linear(block.spec, size, shape[1], pointwise is not None, (False,) * 4).of(wanted)
    found = linear.spread(_backward.bind(*linear.join(x, kernel, pointwise), dy, params=linear))
    return Operands(found[0], found[1], None, found[2], found[3])


def depthwise_gradients(x: Any, kernel: Any, dy: Any, *, spec: ConvSpec) -> Sequence[Any]:
    """The gradients of x and of the kernel of a depthwise convolution, by one call."""
    size = spatial_size(tuple(x.shape), spec)
    wanted = True, True, False, False
    params = _Linear(spec, size, tuple(kernel.shape), separable=False, wanted=wanted)
    return _backward.bind(x, kernel, dy, params=params)


def _of_convolution(operands: Operands) -> tuple[Any, Any, Any, Any]:
    """(x, depthwise_kernel, pointwise_kernel, bias): a convolution has no others."""
    x, kernel, _, pointwise, bias, _ = operands
    return x, kernel, pointwise, bias


def _linear_rules(primitive: Any, composed: Any, linear: Any) -> None:
    """Derivatives and batching of a primitive that is linear in its last operands.

    Args:
        primitive: the primitive.
        composed: the same function, made of primitives that have every rule.
        linear: (params, residuals, tangents of the linear operands, result) to the tangent of the
            result, where the residuals have none.
    """

    def jvp(primals: Sequence[Any], tangents: Sequence[Any], *, params: _Linear) -> Any:
        residuals = sum(params.given)
        if all(map(is_zero, tangents[:residuals])):
            out = primitive.bind(*primals, params=params)
            return out, linear(params, primals[:residuals], tangents[residuals:], out)
        return composed_jvp(composed, primals, tangents, params)

    ad.primitive_jvps[primitive] = jvp
    batching.primitive_batchers[primitive] = functools.partial(composed_batch, composed)


def _tangent_linear(
    params: _Linear, residuals: Sequence[Any], tangents: Sequence[Any], y: Any
) -> Any:
    (x, kernel, pointwise), _ = params.split(residuals)
    return _apply_tangent(params, x, kernel, pointwise, params.spread(tangents), y)


def _backward_linear(
    params: _Linear, residuals: Sequence[Any], tangents: Sequence[Any], _: Any
) -> Any:
    return _backward.bind(*residuals, *tangents, params=params)


def _tangent_transpose(dy: Any, *operands: Any, params: _Linear) -> list[Any]:
    residuals, tangents = params.split(operands)
    none: list[Any] = [None] * sum(params.given)
    if is_zero(dy):
        return no_cotangents(operands)
    wanted = [t is not None and ad.is_undefined_primal(t) for t in params.spread(tangents)]
    fewer = params.of(wanted)
    found = fewer.spread(_backward.bind(*fewer.join(*residuals), dy, params=fewer))
    return none + [g for g, asked in zip(found, params.wanted, strict=True) if asked]


def _backward_transpose(cotangents: Sequence[Any], *operands: Any, params: _Linear) -> list[Any]:
    (x, kernel, pointwise), (dy,) = params.split(operands)
    none = [None] * sum(params.given)
    if all(map(is_zero, cotangents)):
        return no_cotangents(operands)
    tangents = params.spread(cotangents)
    return [*none, _apply_tangent(params, x, kernel, pointwise, tangents, dy.aval)]


_linear_rules(_tangent, _composed_tangent, _tangent_linear)
_linear_rules(_backward, _composed_backward, _backward_linear)
ad.primitive_transposes[_tangent] = _tangent_transpose
ad.primitive_transposes[_backward] = _backward_transpose
