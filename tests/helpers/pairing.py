"""A normalization and an activation that PyTorch modules call one after the other, and checks."""

from __future__ import annotations

import copy

import torch
from torch import nn

import sepconv
from helpers.torch_networks import assert_close, step

__all__ = ["Block", "check", "is_one_pass", "pair"]


class Block(nn.Module):
    """A convolution, a normalization and an activation, as networks write them."""

    def __init__(self, activation=nn.ReLU6, inplace=True, channels=8):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.act = activation(inplace=inplace)
        with torch.no_grad():  # so that all parts of an activation are seen
            self.norm.weight.copy_(torch.linspace(-6, 6, channels))
            self.norm.bias.copy_(torch.linspace(3, -3, channels))

    def forward(self, x):
        x = self.conv(x)
        x = self.norm(x)
        x = self.act(x)
        return x


def pair(
    kind=Block,
    *arguments,
    dtype=torch.float32,
    memory_format=torch.channels_last,
    size=(6, 5),
    **options,
):
    """A stock module, an accelerated copy of it, and images of eight channels and this size."""
    torch.manual_seed(0)
    stock = kind(*arguments, **options).to(dtype).to(memory_format=memory_format)
    ours, _ = sepconv.accelerate(copy.deepcopy(stock))
    x = torch.randn(3, 8, *size, dtype=dtype).to(memory_format=memory_format)
    return stock, ours, x


def is_one_pass(y):
    """Whether a result is a normalization's, without the node of an activation after it."""
    return y.grad_fn.name() == "_NormalizeBackward"


def check(stock, ours, x, *, one_pass, most=1e-4):
    """Both train alike: outputs, gradients, statistics; in one pass or not."""
    y = ours(x)
    assert is_one_pass(y) is one_pass
    stock(x)  # so that both have seen as much
    assert_close(step(ours, x), step(stock, x), most)
    assert_close(list(ours.buffers()), list(stock.buffers()))
    with torch.no_grad():
        assert_close([ours(x)], [stock(x)])
    stock.eval()
    ours.eval()
    assert_close([ours(x)], [stock(x)])
    assert_close(step(ours, x), step(stock, x), most)
    stock.train()
    ours.train()
