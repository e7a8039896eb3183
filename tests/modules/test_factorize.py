"""sepconv.factorize of PyTorch modules, in place."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import sepconv  # noqa: E402
from sepconv import modules  # noqa: E402
from sepconv.modules.factorize import factorize as of_module  # noqa: E402


def pictures(count, channels=3, size=10):
    """Smooth noise, as pictures are."""
    x = torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))
    for axis in (2, 3):
        x = x + x.roll(1, axis) + x.roll(2, axis)
    return x / 3


class Net(nn.Module):
    """A convolution called twice under two names, a grouped one, a 1x1 one, a hooked one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.shared = nn.Conv2d(12, 12, (5, 3), padding="same", bias=False)
        self.again = nn.Sequential(self.shared, nn.ReLU())
        self.grouped = nn.Conv2d(12, 8, 3, groups=2)
        self.one = nn.Conv2d(8, 16, 1)
        self.last = nn.Conv2d(16, 16, 3, stride=2, dilation=2)
        self.hooked = nn.Conv2d(16, 16, 1)
        self.hooked.register_forward_hook(lambda *_: None)
        self.dense = nn.Linear(16, 4)

    def forward(self, x):
        y = self.again(self.shared(self.first(x).relu()))
        y = self.hooked(self.last(self.one(self.grouped(y)).relu()))
        return self.dense(y.mean((2, 3)))


CONVOLUTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (2, 4), "padding": "same"},
    {"kernel_size": (1, 5), "stride": (3, 2), "bias": False},
    {"kernel_size": 3, "dilation": (2, 1), "padding": (2, 0)},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_a_convolution_at_full_rank_is_exact(options):
    conv = nn.Conv2d(3, 8, **options).double()
    conv.weight.requires_grad_(False)
    x = pictures(2).double()
    new, report = sepconv.factorize(conv, x, rank=99)
    assert type(new) is modules.SeparableConv2d
    assert report[0].rank == report[0].full_rank == min(conv.weight[0, 0].numel(), 8)
    assert report.verification.startswith("verified")
    torch.testing.assert_close(new(x), conv(x), rtol=1e-9, atol=1e-9)
    assert not new.depthwise.weight.requires_grad
    assert (new.pointwise.bias is None) == (conv.bias is None)


def test_a_network_changes_in_place():
    net, x = Net(), pictures(2)
    original = copy.deepcopy(net)
    changed, report = sepconv.factorize(net, x, rank=2)
    assert changed is net
    assert isinstance(net.first, modules.SeparableConv2d)
    assert net.shared is net.again[0]
    assert net.shared.depthwise.out_channels == 24
    for name in ("grouped", "one", "hooked"):
        assert type(getattr(net, name)) is nn.Conv2d
    notes = {row.layer: row.note for row in report}
    assert notes["grouped"].startswith("grouped (groups=2)")
    assert "no cheaper" in notes["one"]
    assert "hooks" in notes["hooked"]
    assert [row.rank for row in report if row.layer in ("first", "shared", "last")] == [2, 2, 2]
    assert report.verification.startswith("verified: ")
    # Work is counted for one picture, over both calls.
    shared = next(row for row in report if row.layer == "shared")
    assert shared.multiply_adds == (2 * 100 * 15 * 144, 2 * 100 * 12 * 2 * (15 + 12))
    before, after = (sum(p.numel() for p in each.parameters()) for each in (original, net))
    assert report.parameters == (before, after)
    assert after < before
    assert report.milliseconds is not None
    assert str(report).splitlines()[0].startswith("factorize Net: 3 of 6 convolutions, ")
    net(x).square().mean().backward()
    assert net.first.depthwise.weight.grad is not None


def test_data_lowers_the_error_of_the_outputs():
    x = pictures(64)
    errors = []
    for data in (None, x):
        net = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)).train()
        nn.init.normal_(net[0].weight, generator=torch.Generator().manual_seed(1))
        expected = net.eval()(x).detach()
        mean = net[1].running_mean.clone()
        net.train()
        _, report = sepconv.factorize(net, x[:1], rank=1, data=data)
        assert report.data_aware == (data is not None)
        assert net.training
        assert torch.equal(net[1].running_mean, mean)
        errors.append(float((net.eval()(x).detach() - expected).square().mean()))
    assert errors[1] < errors[0]
    assert report[0].error < report[0].svd_error


def test_budgets():
    x = pictures(1)
    whole = sepconv.factorize(Net(), x, flops=1.0).report.multiply_adds[0]
    _, report = sepconv.factorize(Net(), x, flops=0.6)
    assert report.multiply_adds[1] <= 0.6 * whole
    net = Net()
    total = sum(p.numel() for p in net.parameters())
    sepconv.factorize(net, parameters=total * 3 // 4)
    assert sum(p.numel() for p in net.parameters()) <= total * 3 // 4
    with pytest.raises(ValueError, match=r"flops must be at least \d+"):
        sepconv.factorize(Net(), x, flops=1)
    _, report = sepconv.factorize(Net(), max_error=0.5)
    assert all(row.error <= 0.5 for row in report)
    assert report.verification.startswith("not verified: no inputs")
    assert report.milliseconds is None


def test_a_network_that_differs_is_put_back(monkeypatch):
    from sepconv.modules import factorize

    def differing(*_):
        raise ValueError("factorize: they differ")

    net, x = Net(), pictures(2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    expected = net(x)
    monkeypatch.setattr(factorize, "check_outputs", differing)
    with pytest.raises(ValueError, match="they differ"):
        sepconv.factorize(net, x, rank=2)
    assert torch.equal(net(x), expected)
    assert list(net.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_network_that_uses_a_weight_is_put_back():
    class Uses(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 3)

        def forward(self, x):
            return self.conv(x.to(self.conv.weight.dtype))

    net = Uses()
    with pytest.raises(ValueError, match="uses a convolution's weight: AttributeError: 'Separable"):
        sepconv.factorize(net, pictures(1), rank=1)
    assert type(net.conv) is nn.Conv2d


def test_sizes_are_those_of_the_weight_and_of_the_attributes_as_they_are():
    """As where a first layer was given a weight for other pictures, and then dilated."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 16, 3, padding=1)
    conv.weight = nn.Parameter(torch.randn(16, 8, 3, 3))
    conv.padding = conv.dilation = (2, 2)
    net, report = sepconv.factorize(nn.Sequential(conv), pictures(2, 8), rank=2)
    assert report.changed == 1
    assert net[0].depthwise.in_channels == 8
    assert report.verification.startswith("verified")


def test_the_result_is_stock_again_and_compiles():
    net, x = Net(), pictures(2)
    net.hooked = nn.Identity()
    sepconv.factorize(net, x, rank=2)
    expected = net(x).detach()
    program = sepconv.compile(net, x)
    np.testing.assert_allclose(program(x.numpy()), expected.numpy(), rtol=1e-3, atol=1e-4)
    sepconv.to_stock(net)
    assert type(net.first.depthwise) is nn.Conv2d
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-4)


def test_errors():
    with pytest.raises(ValueError, match="Exactly one of"):
        sepconv.factorize(Net())
    with pytest.raises(ValueError, match="flops needs example_inputs or data"):
        sepconv.factorize(Net(), flops=0.5)
    with pytest.raises(ValueError, match="not empty"):
        sepconv.factorize(Net(), rank=1, data=torch.zeros(0, 3, 8, 8))
    with pytest.raises(TypeError, match="Received: int"):
        of_module(3, rank=1)
    with pytest.raises(TypeError, match="example_inputs are for PyTorch modules"):
        sepconv.factorize("no model", torch.zeros(1), rank=1)


def test_what_is_left_alone_says_why():
    class Own(nn.Conv2d):
        pass

    parametrized = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
    cases = {
        "a class of its own": Own(3, 8, 3),
        "computed from others": parametrized,
        "pads by 'reflect'": nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"),
        "lazy": nn.LazyConv2d(8, 3),
        "has hooks": nn.Conv2d(3, 8, 3),
        "buffers": nn.Conv2d(3, 8, 3),
        "device meta": nn.Conv2d(3, 8, 3, device="meta"),
        "that PyTorch refuses": nn.Conv2d(3, 8, 3),
    }
    cases["has hooks"].weight.register_hook(torch.zeros_like)
    cases["buffers"].register_buffer("mask", torch.ones(3))
    cases["that PyTorch refuses"].stride = (0, 1)
    for why, conv in cases.items():
        _, report = sepconv.factorize(nn.Sequential(conv), rank=1)
        assert report.changed == 0
        assert why in report[0].note
    tied = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ConvTranspose2d(8, 8, 3))
    tied[1].weight = tied[0].weight
    _, report = sepconv.factorize(tied, rank=1)
    assert "another module has its weight" in report[0].note
    assert tied[1].weight is tied[0].weight


def test_no_keras_is_needed():
    code = """
import sys
sys.modules["keras"] = None
import torch, sepconv
net = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU())
_, report = sepconv.factorize(net, torch.zeros(1, 3, 8, 8), rank=2)
print(report.changed)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
