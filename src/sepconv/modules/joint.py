"""A convolution and the normalization after it, whose gradients are computed together.

The gradient of what is between them is then made for a few rows at a time, and never in memory as a
whole. A convolution offers this with its result where `pairing` proves that the normalization alone
gets it; a normalization that computes itself otherwise leaves the offer, and the result is what any
other convolution gives.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sepconv import _native
from sepconv.engines import thresholds
from sepconv.engines.torch import batch_norm
from sepconv.modules import eager
from sepconv.modules.eager import NO_ACTIVATION, Plan, Three

__all__ = ["Offer", "may_pay", "normalize", "offer", "take"]

_MARK = "_sepconv_convolved_for"


class Offer(NamedTuple):
    """What the gradients of a convolution need: its plan and its operands, without a bias."""

    plan: Plan
    x: Tensor
    weight: Tensor


def may_pay(x: Tensor, weight: Tensor, stride: tuple[int, int]) -> bool:
    """Whether eager autograd looks on a convolution whose result is so large that this pays."""
    if not eager.is_eager(x, weight) or x.dim() != 4 or x.stride(1) != 1:
        return False
    batch, _, height, width = x.shape
    pixels = batch * height * width // (stride[0] * stride[1])
    return pixels * weight.shape[0] >= thresholds.LEAST_JOINT


def offer(y: Tensor, plan: Plan, x: Tensor, weight: Tensor, norm: nn.Module) -> None:
    """Notes with a convolution's result what the normalization that it goes to needs."""
    if plan.last and y.requires_grad:
        setattr(y, _MARK, (norm, Offer(plan, x, weight)))


def take(y: Tensor, norm: nn.Module) -> Offer | None:
    """What a convolution offered with its result to a normalization, once; else None."""
    found = y.__dict__.pop(_MARK, None)
    return found[1] if found is not None and found[0] is norm else None


def normalize(
    offered: Offer, v: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, activation: int
) -> Three:
    """As `eager.normalize`, of a result `v` with which its convolution made an offer."""
    # The result without its own node: gradients of the convolution come from this one alone.
    return _apply(*offered, v.detach(), gamma, beta, epsilon, activation)


class _Joint(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        x: Tensor,
        weight: Tensor,
        v: Tensor,
        gamma: Tensor,
        beta: Tensor,
        epsilon: float,
        activation: int,
    ) -> Three:
        y, mean, variance = eager.normalized(v, gamma, beta, epsilon, activation)
        needed = None if activation == NO_ACTIVATION else beta
        ctx.save_for_backward(x, weight, v, gamma, needed, mean, variance)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        ctx.rest = plan, epsilon, activation
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * 8
        plan, epsilon, activation = ctx.rest
        x, weight, v, gamma, beta, mean, variance = ctx.saved_tensors
        _, for_x, for_weight, *_ = ctx.needs_input_grad
        numbers = gamma, beta, mean, variance
        if eager.once(dy) and plan.fits(x, weight) and eager.are_alike(dy, v, *numbers):
            found = _gradients(ctx.rest, x, weight, v, numbers, dy, for_x, for_weight)
        else:
            # To be differentiated or mapped, the result must follow from x and weight here, too.
            v = plan.differentiable(x, weight)
            rest = dy, 1, epsilon, activation
            dv, *others = batch_norm.composed_gradients(v, gamma, beta, mean, variance, *rest)
            dx, dweight, _ = plan.differentiable_gradients(x, weight, dv, for_x, for_weight, False)
            found = dx, dweight, *others
        dx, dweight, dgamma, dbeta = found
        return None, dx, dweight, None, dgamma, dbeta, None, None


def _gradients(
    rest: tuple[Plan, float, int],
    x: Tensor,
    weight: Tensor,
    v: Tensor,
    numbers: tuple[Tensor, Tensor | None, Tensor, Tensor],
    dy: Tensor,
    for_x: bool,
    for_weight: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor]:
    """Those of x, weight, gamma and beta; `numbers` are gamma, beta, mean and variance."""
    plan, epsilon, activation = rest
    order, dtype = torch.channels_last, plan.dtype
    x, v, dy = (images.contiguous(memory_format=order) for images in (x, v, dy))
    given = [None if each is None else each.contiguous() for each in numbers]
    dgamma, dbeta = (torch.empty(plan.kernel[:1], dtype=dtype) for _ in range(2))
    dx = torch.empty(plan.x, dtype=dtype, memory_format=order) if for_x else None
    kernel = plan.taps(weight) if plan.depthwise else weight.contiguous()
    dkernel = None
    if for_weight:
        dkernel = torch.empty(plan.sizes if plan.depthwise else plan.kernel, dtype=dtype)
    operands = x, kernel, v, *given, dy, dx, dkernel, dgamma, dbeta
    pointers = [None if each is None else each.data_ptr() for each in operands]
    if plan.depthwise:
        call: Any = _native.normalized_depthwise_backward
        call(plan.geometry, epsilon, activation, plan.code, *pointers)
        return dx, plan.kernel_of_taps(dkernel), dgamma, dbeta
    batch, channels, height, width = plan.x
    sizes = batch * height * width, channels, plan.kernel[0]
    _native.normalized_pointwise_backward(*sizes, epsilon, activation, plan.code, *pointers)
    return dx, dkernel, dgamma, dbeta


_apply = eager.apply_of(_Joint)
