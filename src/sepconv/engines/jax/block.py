"""A block of an inference network, or a convolution alone, on JAX arrays: one primitive, one call.

The derivatives of one that is a convolution and no more are in `convolution`. Those of any other,
and what cannot be folded into the batch under `vmap`, are those of what it is composed of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.interpreters import ad, batching

from sepconv.engines.jax.calls import align, forward_call, make_primitive, output_aval
from sepconv.engines.jax.compat import typeof
from sepconv.engines.jax.composed import add_bias, depthwise, mix, ordinary, shape_of
from sepconv.engines.jax.convolution import tangent, transpose
from sepconv.engines.jax.transforms import (
    composed_batch,
    composed_jvp,
    fold_batch,
    is_zero,
    no_cotangents,
    unfold_batch,
)
from sepconv.fused import BLOCK_ACTIVATIONS, BlockSpec, Operands, is_convolution
from sepconv.geometry import ACTIVATIONS, ConvSpec, output_shape

__all__ = ["convolve", "fuse"]

_ACTIVATIONS: dict[int, Callable[[Any], Any]] = {
    BLOCK_ACTIVATIONS["relu"]: lambda y: jnp.maximum(y, 0),
    BLOCK_ACTIVATIONS["relu6"]: lambda y: jnp.clip(y, 0, 6),
    BLOCK_ACTIVATIONS["hard_silu"]: jax.nn.hard_silu,
    BLOCK_ACTIVATIONS["silu"]: jax.nn.silu,
}


def fuse(operands: Operands, block: BlockSpec) -> jax.Array:
    """See `sepconv.engines.front`."""
    params = _Params(block, tuple(a is not None for a in operands))
    return _forward.bind(*(a for a in align(*operands) if a is not None), params=params)


def convolve(
    x: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any | None,
    bias: Any | None,
    spec: ConvSpec,
    activation: str | None,
) -> jax.Array:
    """See `sepconv.engines.front`."""
    operands = Operands(x, depthwise_kernel, None, pointwise_kernel, bias)
    return fuse(operands, BlockSpec(spec, ACTIVATIONS[None], ACTIVATIONS[activation]))


class _Params(NamedTuple):
    """A block and which of the operands it has."""

    block: BlockSpec
    given: tuple[bool, ...]

    def split(self, operands: Sequence[Any]) -> Operands:
        """The operands of `fuse` from those that there are."""
        rest = iter(operands)
        return Operands(*(next(rest) if given else None for given in self.given))


def _composed(*operands: Any, params: _Params) -> Any:
    y, kernel, depthwise_bias, pointwise, bias, residual = params.split(operands)
    spec = params.block.spec

    def activate(y: Any, code: int) -> Any:
        return y if code == BLOCK_ACTIVATIONS[None] else _ACTIVATIONS[code](y)

    if kernel is not None:
        y = depthwise(y, kernel, spec=spec)
        if depthwise_bias is not None:
            y = add_bias(y, depthwise_bias, spec)
        y = activate(y, params.block.depthwise_activation)
    if kernel is None:
        y = ordinary(y, pointwise, spec)
    elif pointwise is not None:
        y = mix(y, pointwise[0, 0], spec)
    if bias is not None:
        y = add_bias(y, bias, spec)
    if residual is not None:
        y = y + residual
    return activate(y, params.block.activation)


def _aval(*operands: Any, params: _Params) -> Any:
    shapes = params.split(operands).shapes()
    kernel_shapes = shapes.depthwise_kernel, shapes.pointwise_kernel
    return output_aval(operands[0], output_shape(params.block.spec, shapes.x, kernel_shapes))


def _on_cpu(*operands: Any, params: _Params) -> Any:
    y = shape_of(_aval, *operands, params=params)
    return forward_call(params.split(operands), y, *params.block)


def _batched(params: _Params) -> tuple[bool, ...]:
    """Which operands have a batch axis: x and residual."""
    return (
        True,
        *(False for given in params.given[1:5] if given),
        *(flag for flag in params.given[5:] if flag),
    )


_forward = make_primitive(
    "forward",
    abstract=_aval,
    on_cpu=_on_cpu,
    elsewhere=_composed,
    batch_flags=lambda params: (_batched(params), (True,)),
)


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, params: _Params) -> Any:
    operands, still = params.split(primals), all(map(is_zero, tangents))
    if not still and not is_convolution(operands, params.block):
        return composed_jvp(_composed, primals, tangents, params)
    y = _forward.bind(*primals, params=params)
    if still:
        return y, ad.Zero(typeof(y).to_tangent_aval())
    return y, tangent(params.block, operands, params.split(tangents), y)


def _transpose(dy: Any, *operands: Any, params: _Params) -> list[Any]:
    given = params.split(operands)
    if not is_convolution(given, params.block):
        raise NotImplementedError("Only a convolution alone is transposed in one call.")
    if is_zero(dy):
        return no_cotangents(operands)
    found = transpose(params.block, given, dy)
    return [cotangent for cotangent, here in zip(found, params.given, strict=True) if here]


def _batch(operands: Sequence[Any], axes: Sequence[Any], *, params: _Params) -> Any:
    images = _batched(params)
    if not all(axis is None or image for axis, image in zip(axes, images, strict=True)):
        return composed_batch(_composed, operands, axes, params)
    like, mapped = next((a, i) for a, i in zip(operands, axes, strict=True) if i is not None)
    count = like.shape[mapped]

    def folded(array: Any, axis: Any) -> Any:
        if axis is None:
            array, axis = jnp.broadcast_to(array, (count, *array.shape)), 0
        return fold_batch(array, axis)

    y = _forward.bind(
        *(
            folded(a, axis) if image else a
            for a, axis, image in zip(operands, axes, images, strict=True)
        ),
        params=params,
    )
    return unfold_batch(y, like, mapped), 0


ad.primitive_jvps[_forward] = _jvp
ad.primitive_transposes[_forward] = _transpose
batching.primitive_batchers[_forward] = _batch
