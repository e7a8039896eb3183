"""Our modules against PyTorch's: results, gradients, buffers and memory formats."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.torch_networks import assert_close, geffnet_network, small_pair, step
from torch import nn

import sepconv
from sepconv.modules import eager

FORMATS = pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"]
)


@FORMATS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_network_trains_and_predicts_as_stock(dtype, memory_format):
    stock, ours, x = small_pair(dtype, memory_format)
    most = 1e-4 if dtype is torch.float32 else 1e-10
    for _ in range(2):
        assert_close(step(ours, x), step(stock, x), most)
    assert_close([b.double() for b in ours.buffers()], [b.double() for b in stock.buffers()], 1e-5)
    ours.eval()
    stock.eval()
    with torch.no_grad():
        assert_close([ours(x)], [stock(x)], most)
    assert_close(step(ours, x), step(stock, x), most)


# In float32 a number near 0 may be on the other side of a ReLU, and with few images a gradient
# differs then by per cents, as stock's does from one memory format to the other.
# The other networks, and contiguous memory, which stock takes long for, are in tests/stress.
def test_geffnet():
    pytest.importorskip("geffnet")
    memory_format = torch.channels_last
    stock = geffnet_network("mixnet_s").double().to(memory_format=memory_format)
    ours, record = sepconv.accelerate(copy.deepcopy(stock))
    assert record.changed >= len(record) - 1
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64).to(memory_format=memory_format)
    assert_close(step(ours, x), step(stock, x))
    ours, stock = ours.float().eval(), stock.float().eval()
    with torch.no_grad():
        assert_close([ours(x.float())], [stock(x.float())])


CONVOLUTIONS = {
    "depthwise": (8, 8, 3, {"groups": 8, "padding": 1}),
    "multiplier": (4, 12, (3, 2), {"groups": 4, "padding": (0, 2), "stride": (2, 1)}),
    "same": (6, 6, (4, 3), {"groups": 6, "padding": "same", "dilation": (1, 2)}),
    "valid": (6, 6, 5, {"groups": 6, "padding": "valid", "bias": False}),
    "one channel": (1, 4, 3, {"padding": 1}),
    "1x1": (8, 16, 1, {}),
    "1x1 strided": (16, 8, 1, {"stride": (2, 3), "bias": False}),
    "depthwise 1x1": (8, 8, 1, {"groups": 8}),
}


@FORMATS
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions_2d(kind, memory_format):
    torch.manual_seed(0)
    channels, filters, size, options = CONVOLUTIONS[kind]
    stock = nn.Conv2d(channels, filters, size, **options).to(memory_format=memory_format)
    ours, record = sepconv.accelerate(copy.deepcopy(stock))
    assert record.changed == 1
    for shape in ((2, channels, 9, 8), (0, channels, 9, 8), (1, channels, 7, 7)):
        x = torch.randn(shape).to(memory_format=memory_format)
        if not len(x):
            assert ours(x).shape == stock(x).shape
            continue
        assert_close(step(ours, x), step(stock, x), 1e-5)
        assert ours(x).is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("kind", ["depthwise", "multiplier", "1x1", "1x1 strided", "same"])
@pytest.mark.parametrize("last", [False, True], ids=["ncl", "nlc"])
def test_convolutions_1d(kind, last):
    torch.manual_seed(0)
    channels, filters, size, options = CONVOLUTIONS[kind]
    options = {k: v[-1] if isinstance(v, tuple) else v for k, v in options.items()}
    size = size if isinstance(size, int) else size[-1]
    stock = nn.Conv1d(channels, filters, size, **options)
    ours, record = sepconv.accelerate(copy.deepcopy(stock))
    assert record.changed == 1
    x = torch.randn(2, 11, channels).mT if last else torch.randn(2, channels, 11)
    assert_close(step(ours, x), step(stock, x), 1e-5)
    assert_close([ours(x[0])], [stock(x[0])], 1e-5)  # without a batch, which is PyTorch's


@pytest.mark.parametrize(
    ("kind", "made", "set_later"),
    [
        (nn.Conv2d, {"padding": 1}, {"padding": (2, 2), "dilation": (2, 2)}),
        (nn.Conv2d, {"padding": 1}, {"padding": 2, "dilation": 2, "stride": 2}),
        (nn.Conv2d, {"padding": 1}, {"padding": [0, 2], "stride": [2, 1], "dilation": [1, 1]}),
        (nn.Conv2d, {"padding": "same"}, {"dilation": (3, 1)}),
        (nn.Conv2d, {"padding": 1}, {"padding": "same"}),
        (nn.Conv2d, {"padding": 1}, {"padding": "valid"}),
        (nn.Conv1d, {"padding": 1}, {"padding": (2,), "dilation": (2,)}),
        (nn.Conv1d, {"padding": 1}, {"padding": 2, "dilation": 2, "stride": 2}),
        (nn.Conv1d, {"padding": "same"}, {"dilation": [3]}),
    ],
    ids=str,
)
def test_attributes_that_are_set_after_the_module(kind, made, set_later):
    """As networks for segmentation do with a backbone of a library."""
    torch.manual_seed(0)
    stock = kind(8, 8, 3, groups=8, **made)
    before, record = sepconv.accelerate(copy.deepcopy(stock))
    assert record.changed == 1
    for module in (stock, before):
        for name, value in set_later.items():
            setattr(module, name, value)
    x = torch.randn(2, 8, *(9, 7)[: len(stock.weight.shape) - 2])
    after, record = sepconv.accelerate(copy.deepcopy(stock), verify=x)
    assert record.changed == 1
    for ours in (before, after):
        assert_close(step(ours, x), step(stock, x), 1e-5)


def test_part_of_the_channels_stays_in_channels_last_memory():
    stock = nn.Conv2d(8, 8, 3, groups=8)
    ours, _ = sepconv.accelerate(copy.deepcopy(stock))
    x = torch.randn(2, 24, 6, 6).to(memory_format=torch.channels_last).split(8, 1)[1]
    assert ours(x).is_contiguous(memory_format=torch.channels_last)
    assert_close(step(ours, x), step(stock, x), 1e-5)


@FORMATS
def test_results_are_no_views(memory_format):
    """Of which autograd would copy the gradient where an activation changes them in place."""
    for module in (nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)):
        ours, _ = sepconv.accelerate(module)
        y = ours(torch.randn(2, 8, 6, 6).to(memory_format=memory_format))
        assert y.requires_grad
        assert not y._is_view()
        assert y.relu_().grad_fn.next_functions[0][0] is not None


@FORMATS
@pytest.mark.parametrize("options", [{}, {"track_running_stats": False}, {"momentum": 0.3}])
def test_batch_norm(options, memory_format):
    torch.manual_seed(0)
    stock = nn.BatchNorm2d(6, eps=1e-3, **options)
    nn.init.uniform_(stock.weight, 0.5, 2)
    ours, record = sepconv.accelerate(copy.deepcopy(stock))
    assert record.changed == 1
    for _ in range(2):
        x = torch.randn(3, 6, 5, 4).mul(2).add(1).to(memory_format=memory_format)
        assert_close(step(ours, x), step(stock, x), 1e-5)
    for (name, a), (_, b) in zip(ours.named_buffers(), stock.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    stock.eval()
    ours.eval()
    assert_close(step(ours, x), step(stock, x), 1e-5)


@pytest.mark.parametrize(
    "set_later", [{"track_running_stats": False}, {"running_mean": None, "running_var": None}]
)
def test_batch_norm_that_stops_tracking(set_later):
    stock = nn.BatchNorm2d(6)
    ours, _ = sepconv.accelerate(copy.deepcopy(stock))
    x = torch.randn(3, 6, 5, 4) + 1
    for norm in (stock, ours):
        norm(x)
        for name, value in set_later.items():
            setattr(norm, name, value)
    assert_close(step(ours, x + 1), step(stock, x + 1), 1e-5)
    assert list(ours.state_dict()) == list(stock.state_dict())
    for name, buffer in stock.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer)


@pytest.mark.parametrize(
    ("shape", "memory_format", "served"),
    [
        ((2, 8, 64, 64), torch.contiguous_format, False),  # half of what is served
        ((4, 8, 64, 64), torch.contiguous_format, True),
        ((4, 8, 64, 64), torch.channels_last, True),
        ((2, 64, 32, 32), torch.contiguous_format, True),
        ((2, 64, 32, 32), torch.channels_last, False),
    ],
)
def test_batch_norm_is_served_where_it_is_faster(shape, memory_format, served, monkeypatch):
    monkeypatch.undo()  # the sizes as they are
    ours, _ = sepconv.accelerate(nn.BatchNorm2d(shape[1]))
    x = torch.randn(shape).to(memory_format=memory_format).requires_grad_()
    assert (ours(x).grad_fn.name() == "_NormalizeBackward") == served


def test_errors_are_pytorchs():
    for module, shape in (
        (nn.Conv2d(8, 8, 3, groups=8), (1, 8, 2, 2)),  # smaller than the kernel
        (nn.Conv2d(8, 8, 3, groups=8), (1, 4, 5, 5)),
        (nn.Conv1d(8, 8, 3, groups=8), (1, 8, 2)),
        (nn.BatchNorm2d(8), (1, 8, 1, 1)),  # one number a channel
        (nn.BatchNorm2d(8), (2, 8, 3)),
    ):
        x = torch.randn(shape)
        with pytest.raises((RuntimeError, ValueError)) as expected:
            copy.deepcopy(module)(x)
        ours, _ = sepconv.accelerate(module)
        with pytest.raises(expected.type) as got:
            ours(x)
        assert str(got.value) == str(expected.value)
    ours, _ = sepconv.accelerate(nn.Conv2d(8, 8, 3, groups=8))
    with pytest.raises(RuntimeError, match="type"):
        ours(torch.randn(1, 8, 5, 5, dtype=torch.float64))


def test_what_our_kernels_do_not_take_is_pytorchs(monkeypatch):
    """Half types of a 1x1 convolution, a changed padding_mode, no batch, another device."""

    def forbidden(*_):
        raise AssertionError("computed by ours")

    ours, _ = sepconv.accelerate(nn.Conv2d(8, 8, 1))
    reflecting, _ = sepconv.accelerate(nn.Conv2d(8, 8, 3, groups=8, padding=1))
    monkeypatch.setattr(eager, "convolve", forbidden)
    with pytest.raises(AssertionError, match="computed by ours"):
        ours(torch.ones(1, 8, 2, 2))
    assert ours(torch.ones(8, 2, 2)).shape == (8, 2, 2)
    assert ours.to(torch.bfloat16)(torch.ones(1, 8, 2, 2).bfloat16()).dtype is torch.bfloat16
    assert ours.to("meta")(torch.ones(1, 8, 2, 2, device="meta").bfloat16()).is_meta
    reflecting.padding_mode = "reflect"
    assert reflecting(torch.ones(1, 8, 4, 4)).shape == (1, 8, 4, 4)
