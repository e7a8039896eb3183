"""PyTorch: layouts are used where they lie; no copy is made of a tensor that is contiguous."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sepconv.torch import depthwise_conv2d, separable_conv2d


class _Spy(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(function.overloadpacket._qualified_op_name)
        return function(*args, **(kwargs or {}))

    def copies(self):
        names = ("clone", "copy", "contiguous", "to_copy")
        return [n for n in self.seen if any(name in n for name in names)]


def _kernels():
    return [torch.randn(*s, requires_grad=True) for s in ((3, 3, 8, 1), (1, 1, 8, 5), (5,))]


def _formats():
    nchw = torch.randn(2, 8, 6, 7)
    return {
        "channels_last": torch.randn(2, 6, 7, 8),
        "channels_first": nchw,
        "channels_first in channels_last memory": nchw.to(memory_format=torch.channels_last),
    }


@pytest.mark.parametrize("name", _formats())
def test_no_copies_forward_and_backward(name):
    x = _formats()[name].requires_grad_()
    with _Spy() as spy:
        y = separable_conv2d(
            x, *_kernels(), padding="same", data_format=name.split(" ")[0], activation="relu"
        )
        dy = torch.ones_like(y)
        y.backward(dy)
    assert "sepconv::forward" in spy.seen
    assert "sepconv::backward" in spy.seen
    assert spy.copies() == []
    assert x.grad.stride() == x.stride()


def test_the_spy_sees_a_copy():
    x = torch.randn(2, 7, 6, 8).transpose(1, 2)
    with _Spy() as spy:
        depthwise_conv2d(x, _kernels()[0])
    assert spy.copies() != []


def test_channels_last_memory_in_and_out():
    k, p, b = _kernels()
    x = torch.randn(2, 8, 6, 7)
    last = x.to(memory_format=torch.channels_last)
    y = separable_conv2d(last, k, p, b, data_format="channels_first")
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert not y.is_contiguous()
    expected = separable_conv2d(x, k, p, b, data_format="channels_first")
    assert expected.is_contiguous()
    torch.testing.assert_close(y, expected)


def test_arguments_are_not_written_to():
    k, p, b = _kernels()
    x = torch.randn(2, 6, 7, 8, requires_grad=True)
    versions = [t._version for t in (x, k, p, b)]
    values = [t.detach().clone() for t in (x, k, p, b)]
    separable_conv2d(x, k, p, b, activation="relu").sum().backward()
    assert [t._version for t in (x, k, p, b)] == versions
    assert all(torch.equal(t, v) for t, v in zip((x, k, p, b), values, strict=True))
