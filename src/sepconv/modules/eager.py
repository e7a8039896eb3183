"""Convolutions and normalizations as single nodes of eager autograd, without the dispatcher.

A network calls hundreds of them a step, and the dispatcher's boxes for Python kernels cost as much
time as a small convolution. Where `torch.compile`, `torch.func`, tracing or forward mode look on,
the registered operations serve instead (see `convolving`), and so they do for derivatives of
gradients.

Images come as [batch, channels, height, width]. Results in channels_last memory are no views: an
activation often changes them in place, and of a view autograd would then copy the gradient thrice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from sepconv.engines.torch import batch_norm, convolution, pointwise
from sepconv.geometry import ACTIVATIONS, ConvSpec

__all__ = [
    "channels_last_view",
    "depthwise",
    "depthwise_kernel",
    "is_eager",
    "normalize",
    "product",
    "without_channels_first",
]

_PLAIN = (Tensor, nn.Parameter)


def is_eager(*tensors: Tensor | None) -> bool:
    """Whether nothing but eager autograd, or nothing at all, looks on."""
    return (
        not torch.compiler.is_compiling()
        and forward_ad._current_level < 0
        and not torch._C._are_functorch_transforms_active()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._get_tracing_state() is None
        and all(tensor is None or type(tensor) in _PLAIN for tensor in tensors)
    )


def channels_last_view(x: Tensor) -> Tensor | None:
    """A tensor in channels_last memory as contiguous [batch, height, width, channels]; else None.

    A part of the channels, as `torch.split` gives them, is copied in the format of the whole.
    Images of one pixel are in both formats; in this one they are one product.
    """
    return x.permute(0, 2, 3, 1).contiguous() if x.stride(1) == 1 else None


def depthwise_kernel(weight: Tensor, channels: int) -> Tensor:
    """A kernel [filters, 1, height, width] as [height, width, channels, multiplier], a view."""
    filters, _, height, width = weight.shape
    return weight.reshape(channels, filters // channels, height, width).permute(2, 3, 0, 1)


def without_channels_first(spec: ConvSpec) -> ConvSpec:
    """A convolution's spec for images with channels last."""
    return ConvSpec(*spec[:9], 0)


def _as_channels_first(y: Tensor) -> Tensor:
    """New [batch, height, width, channels] with the channels second, and no view."""
    view = y.permute(0, 3, 1, 2)
    alias = y.new_empty(0)
    return alias.set_(y.untyped_storage(), y.storage_offset(), view.shape, view.stride())


def _apply(function: Any) -> Any:
    # Function.apply itself looks for torch.func's transforms, of which there are none here.
    return super(torch.autograd.Function, function).apply


def _differentiated(*tensors: Tensor | None) -> bool:
    if not torch.is_grad_enabled():
        return False
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _once(dy: Tensor) -> bool:
    """Whether a gradient is computed that is not differentiated in its turn, nor a batch of some.

    Batches of gradients (``is_grads_batched=True``) have no memory of their own.
    """
    if torch.is_grad_enabled() or not is_eager(dy):
        return False
    try:
        dy.data_ptr()
    except RuntimeError:
        return False
    return True


# --- depthwise convolutions ------------------------------------------------------------------


def depthwise(
    x: Tensor, weight: Tensor, bias: Tensor | None, spec: ConvSpec, channels: int
) -> Tensor:
    """A depthwise convolution with a kernel [filters, 1, height, width]."""
    if _differentiated(x, weight, bias):
        return _apply_depthwise(x, weight, bias, spec, channels)
    return _depthwise(x, weight, bias, spec, channels)


def _depthwise(
    x: Tensor, weight: Tensor, bias: Tensor | None, spec: ConvSpec, channels: int
) -> Tensor:
    kernel, nhwc = depthwise_kernel(weight, channels), channels_last_view(x)
    run: Any = convolution._forward_cpu
    if nhwc is None:
        return run(x, kernel, None, bias, spec, ACTIVATIONS[None])
    spec = without_channels_first(spec)
    return _as_channels_first(run(nhwc, kernel, None, bias, spec, ACTIVATIONS[None]))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, spec: ConvSpec, channels: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.rest = spec, channels
        return _depthwise(x, weight, bias, spec, channels)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        spec, channels = ctx.rest
        for_x, for_weight, for_bias = ctx.needs_input_grad[:3]
        kernel, nhwc = depthwise_kernel(weight, channels), channels_last_view(x)
        if nhwc is not None:
            x, dy, spec = nhwc, dy.permute(0, 2, 3, 1), without_channels_first(spec)
        run: Any = convolution._backward_cpu if _once(dy) else torch.ops.sepconv.backward.default
        wanted = [for_x, for_weight, False, for_bias]
        dx, dkernel, _, dbias = run(x, kernel, None, dy, spec, wanted)
        if nhwc is not None and for_x:
            dx = dx.permute(0, 3, 1, 2)
        return (
            dx if for_x else None,
            dkernel.permute(2, 3, 0, 1).reshape(weight.shape) if for_weight else None,
            dbias if for_bias else None,
            None,
            None,
        )


_apply_depthwise = _apply(_Depthwise)


# --- 1x1 convolutions ------------------------------------------------------------------------


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1 convolution with a kernel [filters, channels, 1, 1]."""
    if _differentiated(x, weight, bias):
        return _apply_product(x, weight, bias)
    return _product(x, weight, bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    nhwc, matrix = channels_last_view(x), weight.flatten(1)
    if nhwc is None:
        y = pointwise._product_cpu(x, matrix, True, True)
        return y if bias is None else y.add_(bias[:, None, None])
    y = pointwise._product_cpu(nhwc, matrix, False, True)
    return _as_channels_first(y if bias is None else y.add_(bias))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        dbias = dy.sum((0, 2, 3)) if for_bias else None
        nhwc, matrix = channels_last_view(x), weight.flatten(1)
        if nhwc is not None:
            x, dy = nhwc, dy.permute(0, 2, 3, 1)
        multiply: Any = torch.ops.sepconv.pointwise.default
        correlate: Any = torch.ops.sepconv.pointwise_kernel_gradient.default
        if _once(dy):
            multiply, correlate = pointwise._product_cpu, pointwise._correlation_cpu
        first = nhwc is None
        dx = multiply(dy, matrix, first, False) if for_x else None
        if dx is not None and nhwc is not None:
            dx = dx.permute(0, 3, 1, 2)
        dweight = correlate(dy, x, first).reshape(weight.shape) if for_weight else None
        return dx, dweight, dbias


_apply_product = _apply(_Product)


# --- batch normalization ---------------------------------------------------------------------

Three = tuple[Tensor, Tensor, Tensor]


def normalize(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Three:
    """The normalized images, and the mean and the variance of each channel."""
    if _differentiated(x, gamma, beta):
        return _apply_normalize(x, gamma, beta, epsilon)
    return _normalize(x, gamma, beta, epsilon)


def _normalize(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Three:
    nhwc = channels_last_view(x)
    if nhwc is None:
        return batch_norm._forward_cpu(x, gamma, beta, 1, epsilon)
    y, mean, variance = batch_norm._forward_cpu(nhwc, gamma, beta, 3, epsilon)
    return _as_channels_first(y), mean, variance


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Three:
        y, mean, variance = _normalize(x, gamma, beta, epsilon)
        ctx.save_for_backward(x, gamma, mean, variance)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        ctx.epsilon = epsilon
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * 4
        x, gamma, mean, variance = ctx.saved_tensors
        nhwc, axis = channels_last_view(x), 1
        if nhwc is not None:
            x, dy, axis = nhwc, dy.permute(0, 2, 3, 1), 3
        # What is differentiated, or mapped by vmap, is made of PyTorch's own operations.
        run: Any = batch_norm._gradients_cpu if _once(dy) else batch_norm._composed_gradients
        dx, dgamma, dbeta = run(x, gamma, mean, variance, dy, axis, ctx.epsilon)
        return dx if nhwc is None else dx.permute(0, 3, 1, 2), dgamma, dbeta, None


_apply_normalize = _apply(_Normalize)
