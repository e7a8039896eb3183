"""PyTorch's convolutions of its own tensors and weights, by our kernels where these serve them.

What `torch.nn` and `torch.nn.functional` take is taken here: channels come second, and a kernel is
[filters, channels / groups, height, width]. Memory may be contiguous or ``torch.channels_last``,
and the result is as the input is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sepconv.engines.front import spec_builder
from sepconv.engines.torch import engine
from sepconv.engines.torch.convolution import CODES, as_array, convolve, is_traced
from sepconv.geometry import ConvSpec

__all__ = [
    "MOST_FILTERS",
    "Pads",
    "channels_first",
    "convolve_image",
    "is_depthwise",
    "kernels_refusal",
    "on_cpu",
]

#: (top, bottom), (left, right).
Pads = tuple[tuple[int, int], tuple[int, int]]

#: The most filters for which our kernels are faster on an image of one channel.
MOST_FILTERS = 8

#: The fewest channels, and the fewest filters, for which our 1x1 convolution is faster.
_CHANNELS = 8

_POINTWISE_DTYPES = (torch.float32, torch.float64)

_NO_PADS = ((0, 0), (0, 0))

_product = torch.ops.sepconv.pointwise.default


def is_depthwise(kernel_shape: Sequence[Any], groups: int) -> bool:
    """Whether a kernel [filters, channels / groups, ...] is a depthwise convolution's.

    Example:
        >>> is_depthwise((8, 1, 3, 3), 4), is_depthwise((8, 2, 3, 3), 4)
        (True, False)
    """
    return kernel_shape[1] == 1 and kernel_shape[0] % groups == 0


def kernels_refusal(
    kernel_shape: Sequence[Any], groups: int, pads: Pads, dtype: torch.dtype
) -> str | None:
    """Why our kernels do not compute a convolution; None where they do.

    Args:
        kernel_shape: (filters, channels / groups, height, width).
        groups: how many parts the channels are cut into.
        pads: the rows and columns of zeros around an image.
        dtype: that of image and kernel.

    Example:
        >>> kernels_refusal((8, 1, 3, 3), 8, ((1, 1), (1, 1)), torch.float32)
        >>> kernels_refusal((8, 8, 3, 3), 1, ((1, 1), (1, 1)), torch.float32)
        'an ordinary convolution, neither a depthwise nor a 1x1 one'
    """
    filters, depth, height, width = kernel_shape
    name = str(dtype).removeprefix("torch.")
    if is_depthwise(kernel_shape, groups):
        if groups == 1 and filters > MOST_FILTERS:
            return f"{filters} filters on one channel, which are quicker as an ordinary convolution"
        return None if dtype in CODES else f"computes in {name}"
    if groups != 1 or height != 1 or width != 1:
        return "an ordinary convolution, neither a depthwise nor a 1x1 one"
    if pads != _NO_PADS:
        return "a 1x1 convolution with padding"
    if min(depth, filters) < _CHANNELS:
        return f"a 1x1 convolution with fewer than {_CHANNELS} channels or filters"
    return None if dtype in _POINTWISE_DTYPES else f"a 1x1 convolution in {name}"


def on_cpu(*tensors: Tensor | None) -> bool:
    """Whether all are ordinary tensors on the CPU."""
    return all(
        tensor is None or (tensor.device.type == "cpu" and tensor.layout is torch.strided)
        for tensor in tensors
    )


def convolve_image(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    pads: Pads,
    dilation: tuple[int, int],
    groups: int,
) -> Tensor | None:
    """A convolution of images [batch, channels, height, width], differentiable to any order.

    Args:
        x: the images.
        weight: [filters, channels / groups, height, width].
        bias: None, or one number a filter.
        stride: (height, width).
        pads: the rows and columns of zeros around each image.
        dilation: (height, width).
        groups: how many parts the channels are cut into.

    Returns:
        The result; None where our kernels do not serve the convolution, or PyTorch's own raises.
    """
    if not on_cpu(x, weight, bias) or x.dim() != 4 or x.shape[1] != weight.shape[1] * groups:
        return None
    given, kernel = as_array(x), as_array(weight)
    same = given.dtype == kernel.dtype and (bias is None or bias.dtype == weight.dtype)
    if not same or kernels_refusal(weight.shape, groups, pads, kernel.dtype) is not None:
        return None
    # While a compiler traces, sizes may be symbols, which a test would tie down.
    if not is_traced() and not _fits(x.shape, weight.shape, pads, dilation):
        return None
    bias = None if bias is None else as_array(bias)
    if is_depthwise(weight.shape, groups):
        spec = spec_builder(engine)(stride, pads, dilation, "channels_first")
        return _depthwise(given, kernel, bias, spec, groups)
    y = _pointwise(given, kernel, stride)
    return y if bias is None else y + bias[:, None, None]


def _fits(image: Sequence[int], kernel: Sequence[int], pads: Pads, dilation: Sequence[int]) -> bool:
    """Whether an image holds the kernel, so that the result is not empty."""
    sizes = zip(image[2:], kernel[2:], pads, dilation, strict=True)
    return all(size > 0 and size + sum(pad) > (k - 1) * d for size, k, pad, d in sizes)


def _depthwise(
    x: Tensor, weight: Tensor, bias: Tensor | None, spec: ConvSpec, channels: int
) -> Tensor:
    filters, _, height, width = weight.shape
    kernel = weight.reshape(channels, filters // channels, height, width).permute(2, 3, 0, 1)
    nhwc = _in_channels_last(x)
    if nhwc is None:
        return convolve(x.contiguous(), kernel, None, bias, spec, None)
    return channels_first(convolve(nhwc, kernel, None, bias, ConvSpec(*spec[:9], 0), None))


def _pointwise(x: Tensor, weight: Tensor, stride: tuple[int, int]) -> Tensor:
    matrix = weight.flatten(1)
    down, right = stride
    nhwc = _in_channels_last(x)
    # Images of one pixel are in both memory formats; in this one they are one product.
    if nhwc is None and x.shape[2] == x.shape[3] == 1:
        nhwc = x.permute(0, 2, 3, 1)
    if nhwc is None:
        x = x if down == right == 1 else x[:, :, ::down, ::right]
        return _product(x.contiguous(), matrix, True, True)
    if not down == right == 1:
        nhwc = nhwc[:, ::down, ::right]
    return channels_first(_product(nhwc.contiguous(), matrix, False, True))


def _in_channels_last(x: Tensor) -> Tensor | None:
    """A tensor in channels_last memory as contiguous [batch, height, width, channels].

    None for one that is contiguous itself. A part of the channels, as `torch.split` gives them, is
    copied in the format of the whole.
    """
    if x.is_contiguous() or x.stride(1) != 1:
        return None
    return x.permute(0, 2, 3, 1).contiguous()


# --- results in channels_last memory ---------------------------------------------------------


class _ChannelsFirst(torch.autograd.Function):
    """[batch, height, width, channels] with the channels second, which is no view for autograd.

    An activation often changes the result of a convolution in place. Of a view, autograd would then
    copy the gradient three times.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        view = y.permute(0, 3, 1, 2)
        alias = y.new_empty(0)
        return alias.set_(y.untyped_storage(), y.storage_offset(), view.shape, view.stride())

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return dy.permute(0, 2, 3, 1)


# As of our operations: without what torch.func needs, which takes the other way below.
_apply: Any = super(torch.autograd.Function, _ChannelsFirst).apply


def _is_eager(y: Tensor) -> bool:
    """Whether autograd runs eagerly on a tensor, and nothing else looks on."""
    return (
        not is_traced()
        and y.requires_grad
        and forward_ad._current_level < 0
        and not torch._C._are_functorch_transforms_active()
        and not torch.jit.is_tracing()
        and type(y) is Tensor
    )


def channels_first(y: Tensor) -> Tensor:
    """A new tensor [batch, height, width, channels] as [batch, channels, height, width].

    The memory stays. `y` must not be used again, since what changes the result changes it.
    """
    return _apply(y) if _is_eager(y) else y.permute(0, 3, 1, 2)
