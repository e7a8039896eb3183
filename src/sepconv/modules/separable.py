"""`sepconv.modules.SeparableConv2d`: a depthwise convolution, then one that mixes channels."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn

from sepconv.modules.convolution import Conv2d

__all__ = ["SeparableConv2d"]


class SeparableConv2d(nn.Sequential):
    """A depthwise convolution and a 1x1 convolution, as `sepconv.factorize` puts into a network.

    It is a `torch.nn.Sequential` of two `sepconv.modules.Conv2d`, ``depthwise`` and ``pointwise``;
    so it trains, exports and has a ``state_dict`` as any other, and `sepconv.to_stock` makes the
    two PyTorch's own.

    Args:
        in_channels: of the images.
        out_channels: of the result.
        kernel_size: of the depthwise convolution, as in `torch.nn.Conv2d`.
        stride: likewise.
        padding: likewise.
        dilation: likewise.
        depth_multiplier: how many depthwise kernels a channel has.
        bias: whether a number a filter is added.
        **options: `device` and `dtype`.

    Example:
        >>> import torch
        >>> conv = SeparableConv2d(4, 6, 3, padding=1, depth_multiplier=2)
        >>> conv(torch.ones(1, 4, 5, 5)).shape
        torch.Size([1, 6, 5, 5])
        >>> list(conv.state_dict())
        ['depthwise.weight', 'pointwise.weight', 'pointwise.bias']
    """

    depthwise: Conv2d
    pointwise: Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        depth_multiplier: int = 1,
        bias: bool = True,
        **options: Any,
    ) -> None:
        between = in_channels * depth_multiplier
        depthwise = Conv2d(
            in_channels,
            between,
            kernel_size,
            stride,
            padding,
            dilation,
            groups=in_channels,
            bias=False,
            **options,
        )
        pointwise = Conv2d(between, out_channels, 1, bias=bias, **options)
        super().__init__(OrderedDict(depthwise=depthwise, pointwise=pointwise))


SeparableConv2d.__module__ = "sepconv.modules"  # which files name
