"""PyTorch's batch normalization in training: ``sepconv::batch_norm`` and its gradients.

The mean and the variance that come with the result are for the moving ones: they carry no gradient.
Derivatives of higher order and in forward mode are those of PyTorch's own operations.

As in `torch.nn.functional.batch_norm`, numbers of channels are float32 where x is of a half type:
everything is computed in float32 then, and the result and its derivatives in x are rounded once.

`composed_gradients` also knows an activation after it, by its number in C++. The operations know
none.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sepconv import _native
from sepconv.engines.torch.convolution import CODES
from sepconv.engines.torch.transforms import autograd_kernel, call_below, leading
from sepconv.fused import BLOCK_ACTIVATIONS

__all__ = ["batch_norm", "composed_gradients"]

_library = torch.library.Library("sepconv", "FRAGMENT")
_TAGS = (torch.Tag.pt2_compliant_tag,)
# y, mean and variance; axis is 0 or more.
_library.define(
    "batch_norm(Tensor x, Tensor gamma, Tensor beta, int axis, float epsilon) "
    "-> (Tensor, Tensor, Tensor)",
    tags=_TAGS,
)
# Of x, gamma and beta.
_library.define(
    "batch_norm_gradients(Tensor x, Tensor gamma, Tensor mean, Tensor variance, Tensor dy, "
    "int axis, float epsilon) -> (Tensor, Tensor, Tensor)",
    tags=_TAGS,
)
_forward = torch.ops.sepconv.batch_norm.default
_gradients = torch.ops.sepconv.batch_norm_gradients.default
Three = tuple[Tensor, Tensor, Tensor]
_NONE = BLOCK_ACTIVATIONS[None]


def batch_norm(x: Tensor, gamma: Tensor, beta: Tensor, *, axis: int, epsilon: float) -> Three:
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
    if not x.is_contiguous():  # channels_first in channels_last memory, or the other way round
        for to in (-1, 1):
            moved = x.movedim(axis, to)
            if moved.is_contiguous():
                y, mean, variance = _forward(moved, gamma, beta, to % x.dim(), epsilon)
                return y.movedim(to, axis), mean, variance
    return _forward(x, gamma, beta, axis, epsilon)


# --- on the CPU ------------------------------------------------------------------------------


def _check(x: Tensor, vectors: tuple[Tensor, ...], axis: int) -> tuple[int, int, int]:
    """The sizes before, on and after `axis`. A kernel must not read beyond a tensor."""
    if not 0 <= axis < x.dim():
        raise ValueError(f"axis must be one of x's. Received: axis={axis}, x.shape={x.shape}")
    channels = x.shape[axis]
    for vector in vectors:
        if vector.shape != (channels,):
            raise ValueError(
                f"A tensor of one number for each of {channels} channels was expected. "
                f"Received: one of the shape {tuple(vector.shape)}"
            )
    real = _real_dtype(x)
    if x.dtype not in CODES or any(vector.dtype != real for vector in vectors):
        raise TypeError(
            "x must be float32, float64, bfloat16 or float16, and the numbers of channels float64 "
            "beside float64 and float32 otherwise. "
            f"Received: {x.dtype} and {[vector.dtype for vector in vectors]}"
        )
    return math.prod(x.shape[:axis]), channels, math.prod(x.shape[axis + 1 :])


def _run(
    native: Any,
    sizes: tuple[int, int, int],
    epsilon: float,
    operands: tuple[Tensor | None, ...],
    axis: int,
) -> Three:
    """What a function of the kernels makes of operands that fit; the first is x."""
    x = operands[0]
    assert x is not None
    results = _results(x, axis)
    given = [None if a is None else a.contiguous() for a in operands]
    pointers = [None if a is None else a.data_ptr() for a in (*given, *results)]
    native(*sizes, epsilon, _NONE, CODES[x.dtype], *pointers)
    return results


def _forward_cpu(x: Tensor, gamma: Tensor, beta: Tensor, axis: int, epsilon: float) -> Three:
    sizes = _check(x, (gamma, beta), axis)
    operands = x, gamma, beta
    return _run(_native.batch_norm_forward, sizes, epsilon, operands, axis)


def _gradients_cpu(
    x: Tensor,
    gamma: Tensor,
    mean: Tensor,
    variance: Tensor,
    dy: Tensor,
    axis: int,
    epsilon: float,
) -> Three:
    sizes = _check(x, (gamma, mean, variance), axis)
    if dy.shape != x.shape or dy.dtype != x.dtype:
        raise ValueError(
            "dy must be like x. Received: "
            f"{tuple(dy.shape)} of {dy.dtype}, and x.shape={tuple(x.shape)} of {x.dtype}"
        )
    operands = x, gamma, None, mean, variance, dy
    return _run(_native.batch_norm_backward, sizes, epsilon, operands, axis)


# --- on other devices, and shapes alone ------------------------------------------------------


def _real_dtype(x: Tensor) -> torch.dtype:
    """What x is computed in, and the dtype of its channels' numbers."""
    return torch.promote_types(x.dtype, torch.float32)


def _others(x: Tensor, axis: int) -> list[int]:
    return [i for i in range(x.dim()) if i != axis]


def _along(vector: Tensor, x: Tensor, axis: int) -> Tensor:
    """A number a channel, to be broadcast against x."""
    return vector.view([-1 if i == axis else 1 for i in range(x.dim())])


def _normal(x: Tensor, axis: int, epsilon: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of x: itself without mean and deviation, the inverse deviation, mean and variance."""
    others, x = _others(x, axis), x.to(_real_dtype(x))
    centred = x - x.mean(others, keepdim=True)
    variance = centred.square().mean(others)
    inverse = (variance + epsilon).rsqrt()
    return centred * _along(inverse, x, axis), inverse, x.mean(others), variance


def _composed_forward(x: Tensor, gamma: Tensor, beta: Tensor, axis: int, epsilon: float) -> Three:
    normal, _, mean, variance = _normal(x, axis, epsilon)
    y = normal * _along(gamma, x, axis) + _along(beta, x, axis)
    return y.to(x.dtype).contiguous(), mean.detach(), variance.detach()


def _composed_gradients(
    x: Tensor,
    gamma: Tensor,
    mean: Tensor,
    variance: Tensor,
    dy: Tensor,
    axis: int,
    epsilon: float,
) -> Three:
    # Mean and variance are computed again, since they change with x.
    normal, inverse, *_ = _normal(x, axis, epsilon)
    others, dy = _others(x, axis), dy.to(normal.dtype)
    dbeta, dgamma = dy.sum(others), (dy * normal).sum(others)
    count = x.numel() // max(1, x.shape[axis])
    dx = dy - _along(dbeta / count, x, axis) - normal * _along(dgamma / count, x, axis)
    dx = (dx * _along(gamma * inverse, x, axis)).to(x.dtype)
    return dx.contiguous(), dgamma, dbeta


def composed_gradients(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    variance: Tensor,
    dy: Tensor,
    axis: int,
    epsilon: float,
    activation: int,
) -> Three:
    """The gradients of x, gamma and beta in PyTorch's own operations, to differentiate or map.

    Args:
        x: what was normalized.
        gamma: as in `batch_norm`.
        beta: likewise; read where there is an activation.
        mean: what `batch_norm` returned.
        variance: likewise.
        dy: the gradient of the result after its activation, like x.
        axis: as in `batch_norm`.
        epsilon: likewise.
        activation: the number in C++ of what follows the normalization.
    """
    if activation != _NONE:
        normal = _normal(x, axis, epsilon)[0]
        before = normal * _along(gamma, x, axis) + _along(beta, x, axis)
        dy = _gradient_before(before, dy, activation)
    return _composed_gradients(x, gamma, mean, variance, dy, axis, epsilon)


def _gradient_before(v: Tensor, dy: Tensor, activation: int) -> Tensor:
    """The gradient of v from that of its activation."""
    nothing = torch.zeros_like(dy)
    if activation == BLOCK_ACTIVATIONS["relu"]:
        return torch.where(v > 0, dy, nothing)
    if activation == BLOCK_ACTIVATIONS["relu6"]:
        return torch.where((v > 0) & (v < 6), dy, nothing)
    if activation == BLOCK_ACTIVATIONS["hard_silu"]:
        bent = torch.where(v < 3, dy * (v / 3 + 0.5), dy)
        return torch.where(v > -3, bent, nothing)
    assert activation == BLOCK_ACTIVATIONS["silu"]
    gate = v.sigmoid()
    return dy * (gate * (v * (1 - gate) + 1))


def _results(x: Tensor, axis: int) -> Three:
    """New tensors for what either operation returns: one like x, and two of a number a channel."""
    vectors = [x.new_empty(x.shape[axis : axis + 1], dtype=_real_dtype(x)) for _ in range(2)]
    return x.new_empty(x.shape), vectors[0], vectors[1]


def _fake(x: Tensor, *rest: Any) -> Three:
    return _results(x, rest[-2])  # the last two are axis and epsilon


# --- derivatives -----------------------------------------------------------------------------


class _Function(torch.autograd.Function):
    """The derivative of ``batch_norm`` is ``batch_norm_gradients``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, axis: int, eps: float) -> Three:
        y, mean, variance = call_below(_forward, x, gamma, beta, axis, eps)
        ctx.save_for_backward(x, gamma, mean, variance)
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(x, gamma, mean, variance)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        ctx.rest = axis, eps
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * 5
        # Gradients are on here where this is to be differentiated in its turn.
        compute: Any = _composed_gradients if torch.is_grad_enabled() else _gradients
        return *compute(*ctx.saved_tensors, dy, *ctx.rest), None, None

    @staticmethod
    def jvp(
        ctx: Any, tx: Tensor | None, tgamma: Tensor | None, tbeta: Tensor | None, *_: None
    ) -> tuple[Tensor | None, ...]:
        x, gamma, mean, variance = ctx.saved_tensors
        axis, epsilon = ctx.rest
        change = torch.zeros_like(x)
        if tx is not None:  # the derivative in x is symmetric
            change = _composed_gradients(x, gamma, mean, variance, tx, axis, epsilon)[0]
        if tgamma is not None:
            change = change + _normal(x, axis, epsilon)[0] * _along(tgamma, x, axis)
        if tbeta is not None:
            change = change + _along(tbeta, x, axis)
        return change.to(x.dtype), None, None


# --- vmap: a mapped axis joins the channels, which are kept apart ------------------------------


def _map(operation: Any, arrays: set[int]) -> Any:
    """The rule of an operation whose results have the shapes of x, gamma and gamma.

    `arrays` are the places of those of its arguments that have the shape of x.
    """

    def rule(info: Any, in_dims: Any, *arguments: Any) -> tuple[Three, tuple[int, int, int]]:
        *tensors, axis, epsilon = arguments
        count = info.batch_size
        joined = []
        for place, (tensor, mapped) in enumerate(zip(tensors, in_dims, strict=False)):
            at = axis if place in arrays else 0
            joined.append(leading(tensor, mapped, count).movedim(0, at).flatten(at, at + 1))
        results = operation(*joined, axis, epsilon)
        parts = [
            result.unflatten(at, (count, -1)).movedim(at, 0)
            for result, at in zip(results, (axis, 0, 0), strict=True)
        ]
        return tuple(parts), (0, 0, 0)

    return rule


_library.impl("batch_norm", _forward_cpu, "CPU")
_library.impl("batch_norm", _composed_forward, "CompositeExplicitAutograd")
_library.impl("batch_norm", autograd_kernel(_forward, _Function, 3), "Autograd")
torch.library.register_fake("sepconv::batch_norm", _fake, lib=_library)
torch.library.register_vmap("sepconv::batch_norm", _map(_forward, {0}), lib=_library)
_library.impl("batch_norm_gradients", _gradients_cpu, "CPU")
_library.impl("batch_norm_gradients", _composed_gradients, "CompositeExplicitAutograd")
torch.library.register_fake("sepconv::batch_norm_gradients", _fake, lib=_library)
torch.library.register_vmap("sepconv::batch_norm_gradients", _map(_gradients, {0, 4}), lib=_library)
