"""PyTorch networks for tests: a small one of every kind of module, and those of geffnet."""

from __future__ import annotations

import copy

import torch
from torch import nn

import sepconv


def geffnet_network(name, classes=10):
    """A network with random weights, without dropout."""
    import geffnet

    torch.manual_seed(0)
    return geffnet.create_model(name, num_classes=classes, drop_rate=0.0, drop_connect_rate=0.0)


class Block(nn.Module):
    """An inverted residual block with squeeze and excite, and activations in place."""

    def __init__(self, channels=8, stride=1):
        super().__init__()
        wide = 4 * channels
        self.expand = nn.Conv2d(channels, wide, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(wide)
        self.depthwise = nn.Conv2d(wide, wide, 3, stride, padding=1, groups=wide, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)
        self.squeeze = nn.Conv2d(wide, 8, 1)
        self.excite = nn.Conv2d(8, wide, 1)
        self.project = nn.Conv2d(wide, channels, 1, stride=stride, bias=False)
        self.norm3 = nn.BatchNorm2d(channels)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x):
        y = self.act(self.norm1(self.expand(x)))
        y = self.act(self.norm2(self.depthwise(y)))
        y = y * self.excite(self.act(self.squeeze(y.mean((2, 3), keepdim=True)))).sigmoid()
        y = self.norm3(self.project(y))
        return y + x if y.shape == x.shape else y


class Small(nn.Module):
    """Eleven modules that become ours, and a stem that does not."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.block = Block()
        self.head = nn.Conv2d(8, 16, 2, groups=8, padding="same", dilation=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(16, 5)

    def forward(self, x):
        return self.classify(self.pool(self.head(self.block(self.stem(x)))).flatten(1))


def small_pair(dtype=torch.float32, memory_format=torch.contiguous_format):
    """A stock network and an accelerated copy of it, and images."""
    torch.manual_seed(0)
    stock = Small().to(dtype).to(memory_format=memory_format)
    ours, record = sepconv.accelerate(copy.deepcopy(stock))
    assert record.changed == 10
    x = torch.randn(3, 3, 12, 10, dtype=dtype).to(memory_format=memory_format)
    return stock, ours, x


def step(module, x):
    """The output and all gradients of a training step, also the image's."""
    module.zero_grad()
    x = x.detach().clone().requires_grad_()
    y = module(x)
    # Weights, since what is normalized has a mean square without gradients.
    (y.square() * torch.linspace(1, 2, y.numel(), dtype=y.dtype).view(y.shape)).mean().backward()
    return [y.detach(), x.grad, *(p.grad for p in module.parameters())]


def assert_close(a, b, most=1e-4):
    """Whether tensors agree within `most` of the largest of each pair."""
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        assert one.shape == other.shape
        scale = max(1e-3, float(other.detach().abs().max()))
        assert float((one - other).detach().abs().max()) <= most * scale
