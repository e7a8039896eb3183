"""A convolution and the normalization after it as one node: where, what it gives, and where not."""

from __future__ import annotations

import copy
import functools

import helpers.pairing
import pytest
import torch
from helpers.pairing import Block
from helpers.torch_networks import assert_close, step
from torch import nn
from torch.utils.checkpoint import checkpoint

import sepconv
from sepconv.engines import thresholds
from sepconv.modules import joint


@pytest.fixture(autouse=True)
def _small_images_too(monkeypatch):
    monkeypatch.setattr(thresholds, "LEAST_JOINT", 1)
    monkeypatch.setattr(thresholds, "LEAST_ACTIVATED", 1)
    monkeypatch.setattr(thresholds, "LEAST_NORMALIZED", 1)


class Pointwise(Block):
    """A 1x1 convolution in the place of a depthwise one."""

    def __init__(self, *arguments, filters=24, channels=8, **options):
        super().__init__(*arguments, channels=filters, **options)
        self.conv = nn.Conv2d(channels, filters, 1, bias=False)


class Depthwise(Block):
    """A depthwise convolution with these options."""

    def __init__(self, activation=nn.ReLU6, multiplier=1, kernel=3, **options):
        filters = 8 * multiplier
        super().__init__(activation, channels=filters)
        self.conv = nn.Conv2d(8, filters, kernel, groups=8, bias=False, **options)


class Projecting(nn.Module):
    """A normalization without an activation."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 16, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x):
        return self.norm(self.conv(x))


pair = functools.partial(helpers.pairing.pair, dtype=torch.float64, size=(12, 11))


def joints(y):
    """How many nodes of a result's graph are of a convolution and a normalization together."""
    found, seen, nodes = 0, set(), [y.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found += node.name() == "_JointBackward"
            nodes += [following for following, _ in node.next_functions]
    return found


def check(stock, ours, x, expected, most=1e-9):
    """Both train alike, with so many joint nodes."""
    assert joints(ours(x)) == expected
    stock(x)  # so that both have seen as much
    assert_close(step(ours, x), step(stock, x), most)
    assert_close(list(ours.buffers()), list(stock.buffers()), most)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish])
@pytest.mark.parametrize("kind", [Pointwise, Depthwise])
def test_values_gradients_and_statistics(kind, activation):
    check(*pair(kind, activation), 1)
    check(*pair(kind, activation, dtype=torch.float32), 1, 1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "padding": 1},
        {"multiplier": 3, "padding": "same"},
        {"kernel": (1, 5), "dilation": 2},
        {"kernel": 7, "padding": 3},
    ],
)
def test_depthwise_convolutions(options):
    check(*pair(Depthwise, **options), 1)


def test_products_and_normalizations_alone():
    check(*pair(Projecting), 1)
    for filters in (8, 9, 40):
        check(*pair(Pointwise, filters=filters), 1)
    stock, ours, x = pair(Pointwise)
    stock.conv.stride = ours.conv.stride = (2, 2)
    check(stock, ours, x, 1)


def test_a_row_of_blocks():
    def row():
        return nn.Sequential(
            nn.Conv2d(8, 16, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 16, 3, groups=16, bias=False),
            nn.BatchNorm2d(16),
            nn.SiLU(),
            nn.Conv2d(16, 8, 1, bias=False),
            nn.BatchNorm2d(8),
        )

    check(*pair(row), 3)


def test_many_pixels():
    """More of them than fit into one part."""
    for kind in (Pointwise, Depthwise):
        stock, ours, x = pair(kind, dtype=torch.float32, size=(300, 150))
        assert joints(ours(x)) == 1
        double, exact = copy.deepcopy(stock).double(), x.double()
        found, expected, true = step(ours, x), step(stock, x), step(double, exact)
        for ours_is, stock_is, right in zip(found, expected, true, strict=True):
            error, usual = (float((each - right).abs().max()) for each in (ours_is, stock_is))
            assert error <= 4 * usual + 1e-6 * float(right.abs().max())


# --- what asks for gradients --------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Pointwise, Depthwise])
def test_some_gradients_alone(kind):
    for frozen in (["conv.weight"], ["norm.weight", "norm.bias"], ["norm.weight"]):
        stock, ours, x = pair(kind)
        for module in (stock, ours):
            for name in frozen:
                module.get_parameter(name).requires_grad_(False)
        x.requires_grad_()
        results = []
        for module in (stock, ours):
            inputs = [x, *(p for p in module.parameters() if p.requires_grad)]
            results.append(torch.autograd.grad(module(x).sin().sum(), inputs))
        assert joints(ours(x)) == 1
        assert_close(*results, 1e-9)
    stock, ours, x = pair(kind)
    for module in (stock, ours):
        module(x).sin().sum().backward()  # not of x
    assert_close([p.grad for p in ours.parameters()], [p.grad for p in stock.parameters()], 1e-9)


@pytest.mark.parametrize("kind", [Pointwise, Depthwise, Projecting])
def test_gradients_of_every_order(kind):
    torch.manual_seed(0)
    block = sepconv.accelerate(kind().double()).module
    x = torch.randn(2, 8, 4, 3, dtype=torch.float64).to(memory_format=torch.channels_last)
    x.requires_grad_()
    parameters = list(block.parameters())

    def function(x, *_):
        return block(x)

    assert joints(function(x)) == 1
    options = {"fast_mode": True}
    inputs = (x, *parameters)
    assert torch.autograd.gradcheck(function, inputs, check_batched_grad=True, **options)
    assert torch.autograd.gradgradcheck(function, inputs, **options)


@pytest.mark.parametrize("kind", [Pointwise, Depthwise])
def test_second_derivatives_are_stocks(kind):
    stock, ours, x = pair(kind, nn.SiLU)
    found = []
    for module in (stock, ours):
        leaf = x.clone().requires_grad_()
        inputs = [leaf, *module.parameters()]
        y = module(leaf)
        first = torch.autograd.grad(y.sin().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.sin().sum() for g in first), inputs)
        found.append([*first, *second])
    assert_close(*found, 1e-8)


def test_a_graph_that_is_kept():
    stock, ours, x = pair(Depthwise)
    results = []
    for module in (stock, ours):
        loss = module(x).sin().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        results.append([p.grad for p in module.parameters()])
    assert_close(*results, 1e-9)


def test_an_image_that_changed_after_the_forward_pass_is_an_error():
    _, ours, x = pair(Pointwise)
    y = ours(x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpoints(use_reentrant):
    stock, ours, x = pair(Depthwise)
    results = []
    for module in (stock, ours):
        leaf = x.clone().requires_grad_()
        checkpoint(module, leaf, use_reentrant=use_reentrant).sin().sum().backward()
        results.append([leaf.grad, *(p.grad for p in module.parameters())])
    assert_close(*results, 1e-9)


def test_saved_tensors_may_be_kept_elsewhere():
    stock, ours, x = pair(Pointwise)
    expected = step(stock, x)
    with torch.autograd.graph.save_on_cpu():
        assert_close(step(ours, x), expected, 1e-9)


# --- where the two stay apart -------------------------------------------------------------------


def test_a_bias_and_channels_second_in_memory():
    stock, ours, x = pair(Pointwise, memory_format=torch.contiguous_format)
    check(stock, ours, x, 0)

    class Biased(Pointwise):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(8, 24, 1)

    check(*pair(Biased), 0)


def test_small_results(monkeypatch):
    stock, ours, x = pair(Pointwise)
    monkeypatch.setattr(thresholds, "LEAST_JOINT", 24 * 3 * 12 * 11 + 1)
    check(stock, ours, x, 0)
    monkeypatch.setattr(thresholds, "LEAST_JOINT", 24 * 3 * 12 * 11)
    check(stock, ours, x, 1)


@pytest.mark.parametrize("part", ["conv", "norm"])
def test_hooks(part):
    for register in (
        lambda module: module.register_forward_hook(lambda *_: None),
        lambda module: module.register_forward_pre_hook(lambda *_: None),
        lambda module: module.register_full_backward_hook(lambda *_: None),
    ):
        stock, ours, x = pair(Pointwise, nn.Hardswish, False)
        handles = [register(module.get_submodule(part)) for module in (stock, ours)]
        check(stock, ours, x, 0)
        for handle in handles:
            handle.remove()
        check(stock, ours, x, 1)


def test_a_result_that_something_else_sees():
    class Keeping(Pointwise):
        def forward(self, x):
            x = self.conv(x)
            x.retain_grad()
            self.kept = x
            x = self.norm(x)
            return self.act(x)

    stock, ours, x = pair(Keeping)
    check(stock, ours, x, 0)
    assert_close([ours.kept.grad], [stock.kept.grad], 1e-9)


def test_normalizations_that_compute_otherwise():
    stock, ours, x = pair(Pointwise)
    for module in (stock, ours):
        module.norm.eval()
    check(stock, ours, x, 0)
    stock, ours, x = pair(Pointwise)
    for module in (stock, ours):
        module.norm.momentum = None
    check(stock, ours, x, 0)
    stock, ours, x = pair(Pointwise)
    for module in (stock, ours):
        module.norm = nn.BatchNorm2d(24).double()
    check(stock, ours, x, 0)


def test_an_offer_is_for_one_normalization():
    _, ours, x = pair(Pointwise)
    y = ours.conv(x)  # called from here, where nothing proves who gets it
    assert joint.take(y, ours.norm) is None
    assert joints(ours.act(ours.norm(y))) == 0


@pytest.mark.parametrize("kind", [Pointwise, Depthwise])
def test_transforms_forward_mode_and_compilers(kind):
    stock, ours, x = pair(kind, nn.SiLU)
    results = []
    for module in (stock, ours):
        values = {k: v.detach() for k, v in module.named_parameters()}

        def call(values, x, module=module):
            buffers = {name: value.clone() for name, value in module.named_buffers()}
            return torch.func.functional_call(module, values | buffers, (x,))

        def loss(values, x, call=call):
            return call(values, x).sin().sum()

        results.append(list(torch.func.grad(loss)(values, x).values()))
    assert_close(*results, 1e-8)
    compiled = torch.compile(ours, backend="aot_eager", dynamic=True)
    assert_close(step(compiled, x), step(stock, x), 1e-8)
