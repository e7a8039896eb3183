"""Squeeze-and-excite modules of other packages, whose gradients need less memory."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from helpers.torch_networks import assert_close, step
from torch import nn

import sepconv
from sepconv.modules.squeeze import SqueezeExcite

builder = pytest.importorskip("geffnet.efficientnet_builder")
FORMATS = pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"]
)


def squeeze(dtype=torch.float64, memory_format=torch.channels_last, gate=torch.sigmoid, kind=None):
    """Geffnet's module, an accelerated copy of it, and images."""
    torch.manual_seed(0)
    kind = kind or builder.SqueezeExcite
    stock = kind(16, act_layer=nn.SiLU, gate_fn=gate, divisor=8).to(dtype)
    ours, _ = sepconv.accelerate(copy.deepcopy(stock))
    return stock, ours, torch.randn(3, 16, 6, 5, dtype=dtype).to(memory_format=memory_format)


def is_ours(y):
    return type(y.grad_fn).__name__ == "_GatedBackward"


def check(stock, ours, x, served=True, most=1e-10):
    assert is_ours(ours(x.clone().requires_grad_())) == served
    found, expected = step(ours, x), step(stock, x)
    assert [each is None for each in found] == [each is None for each in expected]
    given = [[each for each in values if each is not None] for values in (found, expected)]
    assert_close(*given, most)


@FORMATS
@pytest.mark.parametrize("gate", [torch.sigmoid, nn.functional.hardsigmoid])
def test_a_step_is_as_stock(gate, memory_format):
    stock, ours, x = squeeze(gate=gate, memory_format=memory_format)
    check(stock, ours, x)
    stock, ours, x = squeeze(torch.float32, gate=gate, memory_format=memory_format)
    check(stock, ours, x, most=1e-5)


@FORMATS
def test_the_products_own_gradients_are_equal_to_the_bit(memory_format):
    stock, ours, x = squeeze(torch.float32, memory_format)
    for module in (stock, ours):  # PyTorch's convolutions in both
        module.conv_reduce, module.conv_expand = stock.conv_reduce, stock.conv_expand
    for one, other in zip(step(ours, x), step(stock, x), strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


def test_the_record_and_back():
    stock = nn.Sequential(builder.SqueezeExcite(16, divisor=8))
    ours, record = sepconv.accelerate(copy.deepcopy(stock))
    assert [(each.layer, each.kind, each.done) for each in record] == [
        ("0", "SqueezeExcite", True),
        ("0.conv_reduce", "Conv2d", True),
        ("0.conv_expand", "Conv2d", True),
    ]
    assert isinstance(ours[0], SqueezeExcite)
    assert repr(ours) == repr(stock)
    assert sepconv.accelerate(ours)[1].changed == 0
    again = pickle.loads(pickle.dumps(ours))
    assert type(again[0]) is type(ours[0])
    assert type(sepconv.to_stock(ours)[0]) is builder.SqueezeExcite


def test_what_does_not_become_ours():
    class Derived(builder.SqueezeExcite):
        pass

    stock, ours, x = squeeze(kind=Derived)
    check(stock, ours, x, served=False)
    module = builder.SqueezeExcite(16, divisor=8)
    module.forward = lambda x: x
    assert sepconv.accelerate(module)[1].changed == 2


def test_a_class_with_another_forward(monkeypatch):
    def forward(self, x):
        return 2 * x * self.gate_fn(self.conv_expand(self.act1(self.conv_reduce(x))))

    monkeypatch.setattr(builder.SqueezeExcite, "forward", forward)
    check(*squeeze(), served=False)


@pytest.mark.parametrize(
    "gate",
    [
        lambda x: x.mean(1, keepdim=True),
        lambda x: x.sigmoid().expand(-1, -1, 6, 5),
        lambda x: x.sigmoid().float(),
        lambda x: 0.5,
    ],
    ids=["one channel", "every pixel", "another dtype", "a number"],
)
def test_gates_that_are_no_number_a_channel(gate):
    check(*squeeze(gate=gate), served=False)


def test_a_gate_without_gradient_and_images_without():
    check(*squeeze(gate=lambda x: x.detach().sigmoid()))
    stock, ours, x = squeeze()
    for module in (stock, ours):
        module.zero_grad()
        module(x).square().sum().backward()
    assert_close(*([p.grad for p in module.parameters()] for module in (ours, stock)), 1e-10)
    with torch.no_grad():
        assert torch.equal(ours(x.requires_grad_()), ours.requires_grad_(False)(x))


def test_hooks_and_replaced_parts_see_what_they_see_in_stock():
    stock, ours, x = squeeze()
    seen = [], []
    for module, values in zip((stock, ours), seen, strict=True):
        module.conv_reduce.register_forward_hook(
            lambda _, given, y, values=values: values.extend([given[0].detach(), y.detach()])
        )
        module.act1 = nn.Tanh()
    check(stock, ours, x)
    assert_close(seen[1][-2:], seen[0][-2:], 1e-10)


def test_gradients_of_every_order():
    _, ours, x = squeeze()
    x = x[:1, :, :2, :3].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(ours, x, check_batched_grad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(ours, x, fast_mode=True)


def test_transforms_compilers_and_modes():
    torch._dynamo.reset()
    stock, ours, x = squeeze()
    assert_close(step(torch.compile(ours, backend="aot_eager"), x), step(stock, x), 1e-10)
    found, expected = (torch.func.grad(lambda x, m=m: m(x).sin().sum())(x) for m in (ours, stock))
    assert_close([found], [expected], 1e-10)

    class Doubled(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, arguments=(), options=None):
            y = function(*arguments, **(options or {}))
            return 2 * y if function is torch.Tensor.mean else y

    leaf = x.clone().requires_grad_()
    with Doubled():
        found, expected = ours(leaf), stock(leaf)
    assert_close([found], [expected], 1e-10)
    assert "mean" in {str(node) for node in torch.fx.symbolic_trace(ours).graph.nodes}


def test_autocast():
    stock, ours, x = squeeze(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y, expected = ours(x.requires_grad_()), stock(x)
    assert not is_ours(y)
    assert y.dtype is expected.dtype
    assert_close([y.float()], [expected.float()], 0.05)


def test_saved_tensors_that_come_back_as_others():
    stock, ours, x = squeeze(torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda t: t.clone().mT.mT):
        found = step(ours, x)
    assert_close(found, step(stock, x))
