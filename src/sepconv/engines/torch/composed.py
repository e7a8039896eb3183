"""The operations of `sepconv.engines.torch` by PyTorch's own convolution, for any device."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sepconv.geometry import ACTIVATIONS, ConvSpec, resolve

__all__ = ["backward", "forward", "ordinary"]


@lru_cache(maxsize=1024)
def _pads(spec: tuple[int, ...], x: tuple[int, ...], kernel: tuple[int, ...]) -> list[int]:
    """In the order of `functional.pad`. What comes after may be negative: rows never reached."""
    (top, bottom), (left, right) = resolve(ConvSpec(*spec), x, kernel).pads
    return [left, right, top, bottom]


def _dense(a: Tensor) -> Tensor:
    """`a` contiguous, with the strides of a new tensor also for axes of size 0 or 1."""
    return a.contiguous().view(-1).view(a.shape)


class _Depthwise:
    """The arguments of both directions as `torch.nn.functional.conv2d` wants them."""

    def __init__(self, x: Tensor, kernel: Tensor, spec: list[int]) -> None:
        self.spec = ConvSpec(*spec)
        self.kernel = kernel
        self.pads = _pads(tuple(spec), tuple(x.shape), tuple(kernel.shape))
        left, right, top, bottom = self.pads
        # PyTorch pads both sides alike; anything else is padded apart.
        self.apart = left != right or top != bottom
        self.x = self.first(x)
        self.padded = functional.pad(self.x, self.pads) if self.apart else self.x
        kh, kw, channels, multiplier = kernel.shape
        self.weight = kernel.permute(2, 3, 0, 1).reshape(channels * multiplier, 1, kh, kw)
        self.stride = [self.spec.stride_h, self.spec.stride_w]
        self.padding = [0, 0] if self.apart else [top, left]
        self.dilation = [self.spec.dilation_h, self.spec.dilation_w]
        self.groups = channels

    def first(self, a: Tensor) -> Tensor:
        """From the layout of `spec` to channels_first."""
        return a if self.spec.channels_first else a.permute(0, 3, 1, 2)

    def layout(self, a: Tensor) -> Tensor:
        """From channels_first to the layout of `spec`, contiguous."""
        return _dense(a if self.spec.channels_first else a.permute(0, 2, 3, 1))

    def forward(self) -> Tensor:
        return functional.conv2d(
            self.padded, self.weight, None, self.stride, self.padding, self.dilation, self.groups
        )

    def backward(self, dy: Tensor, wanted: list[bool]) -> tuple[Tensor | None, Tensor | None]:
        dx, dweight, _ = torch.ops.aten.convolution_backward(
            dy,
            self.padded,
            self.weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            False,
            [0, 0],
            self.groups,
            [*wanted, False],
        )
        if dx is not None and self.apart:
            dx = functional.pad(dx, [-n for n in self.pads])
        if dweight is not None:
            kh, kw, channels, multiplier = self.kernel.shape
            dweight = dweight.reshape(channels, multiplier, kh, kw).permute(2, 3, 0, 1)
        return dx, dweight


def forward(
    x: Tensor,
    depthwise_kernel: Tensor,
    pointwise_kernel: Tensor | None,
    bias: Tensor | None,
    spec: list[int],
    activation: int,
) -> Tensor:
    """``sepconv::forward``."""
    depthwise = _Depthwise(x, depthwise_kernel, spec)
    y = depthwise.forward()
    if pointwise_kernel is not None:
        y = (y.movedim(1, -1) @ pointwise_kernel[0, 0]).movedim(-1, 1)
    if bias is not None:
        y = y + bias[:, None, None]
    if activation == ACTIVATIONS["relu"]:
        y = functional.relu(y)
    elif activation == ACTIVATIONS["relu6"]:
        y = functional.relu6(y)
    return depthwise.layout(y)


def backward(
    x: Tensor,
    depthwise_kernel: Tensor,
    pointwise_kernel: Tensor | None,
    dy: Tensor,
    spec: list[int],
    wanted: list[bool],
) -> tuple[Tensor, ...]:
    """``sepconv::backward``."""
    depthwise = _Depthwise(x, depthwise_kernel, spec)
    dy = depthwise.first(dy)
    dx = dkernel = dpointwise = dbias = None
    if wanted[3]:
        dbias = dy.sum((0, 2, 3))
    if pointwise_kernel is not None:
        last = dy.movedim(1, -1)
        if wanted[2]:
            middle = depthwise.forward().movedim(1, -1)
            dpointwise = (middle.flatten(0, 2).mT @ last.flatten(0, 2))[None, None]
        dy = (last @ pointwise_kernel[0, 0].mT).movedim(-1, 1)
    if wanted[0] or wanted[1]:
        dx, dkernel = depthwise.backward(dy, wanted[:2])
    if dx is not None:
        dx = depthwise.layout(dx)
    return tuple(
        dy.new_empty((0,)) if grad is None else _dense(grad)
        for grad in (dx, dkernel, dpointwise, dbias)
    )


def _same_padding(size: Any, kernel: int, stride: int, dilation: int) -> tuple[Any, Any]:
    """What ``native/geometry.cc`` computes, for sizes that may be symbols."""
    if stride == 1:
        total = (kernel - 1) * dilation
    else:
        total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def ordinary(x: Tensor, kernel: Tensor, spec: list[int]) -> Tensor:
    """An ordinary convolution by a kernel [kh, kw, C, F], in the layout of `spec`."""
    conv = ConvSpec(*spec)
    image = x if conv.channels_first else x.permute(0, 3, 1, 2)
    rows, columns = conv[5:7], conv[7:9]
    if conv.same:
        rows, columns = (
            _same_padding(image.shape[axis + 2], kernel.shape[axis], conv[axis], conv[axis + 2])
            for axis in (0, 1)
        )
    y = functional.conv2d(
        functional.pad(image, [*columns, *rows]),
        kernel.permute(3, 2, 0, 1),
        None,
        conv[0:2],
        0,
        conv[2:4],
    )
    return y if conv.channels_first else y.permute(0, 2, 3, 1)
