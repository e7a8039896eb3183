"""PyTorch: derivatives of first and second order, in both modes, and torch.func's transforms."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from sepconv.torch import depthwise_conv2d, separable_conv1d, separable_conv2d

CASES = {
    "plain": {},
    "same, unequal strides": {"padding": "same", "strides": (1, 2)},
    "stride with dilation": {"padding": ((1, 2), (2, 0)), "strides": 2, "dilation_rate": (1, 2)},
    "channels_first": {"padding": "same", "strides": (2, 1), "data_format": "channels_first"},
    "relu": {"activation": "relu"},
    "relu6": {"activation": "relu6", "padding": "same", "data_format": "channels_first"},
}
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")


def _tensors(data_format="channels_last", bias=True, filters=2):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator, requires_grad=True)

    x = random(1, 4, 3, 2) if data_format == "channels_last" else random(1, 2, 4, 3)
    tensors = [x, random(3, 2, 2, 2)]
    if filters:
        tensors.append(random(1, 1, 4, filters))
    if bias:
        tensors.append(random(filters or 4))
    return tensors


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@pytest.mark.parametrize("separable", [False, True], ids=["depthwise", "separable"])
def test_gradcheck_and_gradgradcheck(options, separable):
    tensors = _tensors(options.get("data_format", "channels_last"), filters=2 * separable)
    call = separable_conv2d if separable else depthwise_conv2d

    def function(*arguments):
        return call(*arguments, **options)

    assert gradcheck(function, tensors, check_forward_ad=True)
    assert gradgradcheck(function, tensors)


@pytest.mark.parametrize("call", [depthwise_conv2d, separable_conv2d])
def test_forward_over_reverse(call):
    tensors = _tensors(bias=False, filters=2 * (call is separable_conv2d))
    assert gradgradcheck(call, tensors, check_fwd_over_rev=True)


def test_gradcheck_in_one_dimension():
    x, k, p = (
        torch.randn(*s, dtype=torch.float64, requires_grad=True)
        for s in ((2, 6, 2), (3, 2, 1), (1, 2, 3))
    )
    function = lambda *a: separable_conv1d(*a, padding="causal", dilation_rate=2)  # noqa: E731
    assert gradcheck(function, (x, k, p))
    assert gradgradcheck(function, (x, k, p))


def test_only_the_gradients_asked_for():
    x, k, p, b = _tensors()
    for chosen in ((x,), (k,), (p,), (b,), (x, b), (k, p)):
        arguments = [t if any(t is c for c in chosen) else t.detach() for t in (x, k, p, b)]
        grads = torch.autograd.grad(separable_conv2d(*arguments).square().sum(), chosen)
        every = torch.autograd.grad(separable_conv2d(x, k, p, b).square().sum(), chosen)
        for grad, expected in zip(grads, every, strict=True):
            torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-12)


def test_leaf_and_computed_tensors():
    x, k, p, b = _tensors()
    separable_conv2d(2 * x, k, p, b).sum().backward()
    doubled = x.grad.clone()
    x.grad = None
    separable_conv2d(x, k, p, b).sum().backward()
    torch.testing.assert_close(doubled, 2 * x.grad)


def test_third_derivative():
    x, k = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 3.0, requires_grad=True)
    y = depthwise_conv2d(x, k).pow(3).sum()  # 8 k^3
    first = torch.autograd.grad(y, k, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), k, create_graph=True)[0]
    third = torch.autograd.grad(second.sum(), k)[0]
    assert (first.item(), second.item(), third.item()) == (216.0, 144.0, 48.0)


def _loss(options):
    return lambda *a: separable_conv2d(*a, **options).square().sum()


def test_torch_func_grad():
    tensors, loss = _tensors(), _loss({"padding": "same"})
    grads = torch.func.grad(loss, (0, 1, 2, 3))(*(t.detach() for t in tensors))
    for grad, expected in zip(grads, torch.autograd.grad(loss(*tensors), tensors), strict=True):
        torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("argument", [0, 1, 2])
def test_torch_func_hessians_agree(argument):
    tensors = [t.detach() for t in _tensors()]
    loss = _loss({"padding": "same", "strides": 2})

    def function(value):
        return loss(*tensors[:argument], value, *tensors[argument + 1 :])

    value = tensors[argument]
    expected = torch.autograd.functional.hessian(function, value)
    assert expected.abs().max() > 0
    for outer in (torch.func.jacrev, torch.func.jacfwd):
        for inner in (torch.func.jacrev, torch.func.jacfwd):
            torch.testing.assert_close(outer(inner(function))(value), expected)


def test_jvp_under_no_grad_keeps_the_tangent():
    x, k, p, b = (t.detach() for t in _tensors())
    with torch.no_grad():
        _, tangent = torch.func.jvp(lambda k: separable_conv2d(x, k, p, b), (k,), (k,))
    torch.testing.assert_close(tangent, separable_conv2d(x, k, p))
