"""What the rules of JAX's transformations share: zero tangents, axes that `vmap` maps over."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import ad

from sepconv.geometry import ConvSpec

__all__ = [
    "composed_batch",
    "composed_jvp",
    "fold",
    "fold_batch",
    "fold_outputs",
    "is_zero",
    "no_cotangents",
    "repeat",
    "unfold",
    "unfold_batch",
    "unfold_outputs",
]


def is_zero(value: Any) -> bool:
    """Whether a tangent or cotangent is one of JAX's symbolic zeros."""
    return isinstance(value, ad.Zero)


def no_cotangents(operands: Sequence[Any]) -> list[Any]:
    """What a transposition gives for its operands where the result's cotangent is zero."""
    return [
        ad.Zero(a.aval.to_tangent_aval()) if ad.is_undefined_primal(a) else None for a in operands
    ]


def composed_jvp(
    composed: Any, primals: Sequence[Any], tangents: Sequence[Any], params: Any
) -> tuple[Any, Any]:
    """The result and its tangent, of `composed` in the place of what has no rule."""
    moving = [i for i, t in enumerate(tangents) if not is_zero(t)]

    def along(*values: Any) -> Any:
        operands = list(primals)
        for i, value in zip(moving, values, strict=True):
            operands[i] = value
        return composed(*operands, params=params)

    return jax.jvp(along, [primals[i] for i in moving], [tangents[i] for i in moving])


def composed_batch(
    composed: Any, operands: Sequence[Any], axes: Sequence[Any], params: Any
) -> tuple[Any, Any]:
    """The results for a mapped axis, and where they have it, of `composed` likewise."""
    out = jax.vmap(functools.partial(composed, params=params), tuple(axes))(*operands)
    return out, [0] * len(out) if isinstance(out, list) else 0


def fold_batch(array: Any, axis: int) -> Any:
    """Makes a mapped axis the outer part of the batch."""
    array = jnp.moveaxis(array, axis, 0)
    return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])


def unfold_batch(array: Any, like: Any, axis: int) -> Any:
    """The inverse of `fold_batch` for `like` and `axis`; the mapped axis comes first."""
    count = like.shape[axis]
    batch = like.shape[1 if axis == 0 else 0]
    return array.reshape(count, batch, *array.shape[1:])


def fold(array: Any, axis: int, into: int) -> Any:
    """Makes a mapped axis the outer part of the axis that is number `into` without it."""
    array = jnp.moveaxis(array, axis, into)
    shape = array.shape
    return array.reshape(*shape[:into], shape[into] * shape[into + 1], *shape[into + 2 :])


def unfold(array: Any, count: int, axis: int) -> Any:
    """The inverse of `fold`; the mapped axis comes first."""
    shape = array.shape
    array = array.reshape(*shape[:axis], count, shape[axis] // count, *shape[axis + 1 :])
    return jnp.moveaxis(array, axis, 0)


def fold_outputs(dy: Any, axis: int, channels: int, spec: ConvSpec) -> Any:
    """Makes a mapped axis of y the outer part of its multiplier: C * M to C * (B * M) channels."""
    at = spec.channel_axis
    dy = jnp.moveaxis(dy, axis, 0)
    count, *rest = dy.shape
    split = dy.reshape(count, *rest[:at], channels, rest[at] // channels, *rest[at + 1 :])
    merged = jnp.moveaxis(split, 0, at + 1)
    return merged.reshape(*rest[:at], rest[at] * count, *rest[at + 1 :])


def unfold_outputs(y: Any, count: int, channels: int, spec: ConvSpec) -> Any:
    """The inverse of `fold_outputs`; the mapped axis comes first."""
    at = spec.channel_axis
    shape = y.shape
    each = shape[at] // (channels * count)
    split = y.reshape(*shape[:at], channels, count, each, *shape[at + 1 :])
    return jnp.moveaxis(split, at + 1, 0).reshape(
        count, *shape[:at], channels * each, *shape[at + 1 :]
    )


def repeat(array: Any, count: int) -> Any:
    """The array `count` times along a new first axis."""
    return jnp.broadcast_to(array, (count, *array.shape))
