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
    form = _Form(block, tuple(a is not None for a in operands))
    return _forward.bind(*(a for a in align(*operands) if a is not None), form=form)


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


class _Form(NamedTuple):
    """A block and which of the operands it has."""

    block: BlockSpec
    given: tuple[bool, ...]

    def split(self, operands: Sequence[Any]) -> Operands:
        """The operands of `fuse` from those that there are."""
        rest = iter(operands)
        return Operands(*(next(rest) if given else None for given in self.given))


def _composed(*operands: Any, form: _Form) -> Any:
    y, kernel, depthwise_bias, pointwise, bias, residual = form.split(operands)
    spec = form.block.spec

    def activate(y: Any, code: int) -> Any:
        return y if code == BLOCK_ACTIVATIONS[None] else _ACTIVATIONS[code](y)

    if kernel is not None:
        y = depthwise(y, kernel, spec=spec)
        if depthwise_bias is not None:
            y = add_bias(y, depthwise_bias, spec)
        y = activate(y, form.block.depthwise_activation)
    if kernel is None:
        y = ordinary(y, pointwise, spec)
    elif pointwise is not None:
        y = mix(y, pointwise[0, 0], spec)
    if bias is not None:
        y = add_bias(y, bias, spec)
    if residual is not None:
        y = y + residual
    return activate(y, form.block.activation)


def _aval(*operands: Any, form: _Form) -> Any:
    shapes = form.split(operands).shapes()
    kernel_shapes = shapes.depthwise_kernel, shapes.pointwise_kernel
    return output_aval(operands[0], output_shape(form.block.spec, shapes.x, kernel_shapes))


def _on_cpu(*operands: Any, form: _Form) -> Any:
    y = shape_of(_aval, *operands, form=form)
    return forward_call(form.split(operands), y, *form.block)


def _batched(form: _Form) -> tuple[bool, ...]:
    """Which operands have a batch axis: x and residual."""
    return (
        True,
        *(False for given in form.given[1:5] if given),
        *(flag for flag in form.given[5:] if flag),
    )


_forward = make_primitive(
    "forward",
    abstract=_aval,
    on_cpu=_on_cpu,
    elsewhere=_composed,
    batch_flags=lambda form: (_batched(form), (True,)),
)


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, form: _Form) -> Any:
    operands, still = form.split(primals), all(map(is_zero, tangents))
    if not still and not is_convolution(operands, form.block):
        return composed_jvp(_composed, primals, tangents, form)
    y = _forward.bind(*primals, form=form)
    if still:
        return y, ad.Zero(typeof(y).to_tangent_aval())
    return y, tangent(form.block, operands, form.split(tangents), y)


def _transpose(dy: Any, *operands: Any, form: _Form) -> list[Any]:
    given = form.split(operands)
    if not is_convolution(given, form.block):
        raise NotImplementedError("Only a convolution alone is transposed in one call.")
    if is_zero(dy):
        return no_cotangents(operands)
    found = transpose(form.block, given, dy)
    return [cotangent for cotangent, here in zip(found, form.given, strict=True) if here]


def _batch(operands: Sequence[Any], axes: Sequence[Any], *, form: _Form) -> Any:
    images = _batched(form)
    if not all(axis is None or image for axis, image in zip(axes, images, strict=True)):
        return composed_batch(_composed, operands, axes, form)
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
        form=form,
    )
    return unfold_batch(y, like, mapped), 0


ad.primitive_jvps[_forward] = _jvp
ad.primitive_transposes[_forward] = _transpose
batching.primitive_batchers[_forward] = _batch
