"""PyTorch's 1x1 convolution: values, derivatives, transforms, compilation, other devices."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from sepconv.engines.torch.pointwise import pointwise

FORMATS = ("channels_last", "channels_first")
PRODUCT = torch.ops.sepconv.pointwise
CORRELATION = torch.ops.sepconv.pointwise_kernel_gradient


def tensors(data_format, dtype=torch.float64, batch=2, channels=5, filters=7, size=(3, 4)):
    generator = torch.Generator().manual_seed(0)
    shape = (
        (batch, channels, *size) if data_format == "channels_first" else (batch, *size, channels)
    )
    return [
        torch.randn(s, dtype=dtype, generator=generator) for s in (shape, (1, 1, channels, filters))
    ]


def by_conv2d(x, kernel, data_format):
    first = data_format == "channels_first"
    y = torch.nn.functional.conv2d(
        x if first else x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1)
    )
    return y if first else y.permute(0, 2, 3, 1)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("channels", "filters"), [(5, 7), (64, 33), (1, 1)])
def test_values_and_gradients(data_format, dtype, channels, filters):
    pair = tensors(data_format, dtype, channels=channels, filters=filters)
    leaves = [a.requires_grad_() for a in pair]
    y, expected = pointwise(*leaves, data_format=data_format), by_conv2d(*leaves, data_format)
    assert y.is_contiguous()
    torch.testing.assert_close(y, expected)
    dy = torch.cos(expected.detach())
    grads, others = (torch.autograd.grad(out, leaves, dy) for out in (y, expected))
    torch.testing.assert_close(grads, others)


HALVES = [torch.bfloat16, torch.float16]


def assert_half(found, exact):
    """What float64 makes of the same values, but for one rounding and a float32 sum's own."""
    unit = torch.finfo(found.dtype).eps
    close = {"rtol": unit, "atol": 1e-5 * float(exact.detach().abs().max())}
    torch.testing.assert_close(found.double(), exact, **close)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("channels", "filters"), [(5, 7), (64, 33)])
def test_half_types_are_summed_in_float32(data_format, dtype, channels, filters):
    leaves = [
        a.to(dtype).requires_grad_()
        for a in tensors(data_format, channels=channels, filters=filters)
    ]
    wide = [a.detach().double().requires_grad_() for a in leaves]
    y, exact = pointwise(*leaves, data_format=data_format), by_conv2d(*wide, data_format)
    assert y.dtype == dtype
    assert_half(y, exact)
    dy = torch.cos(exact.detach()).to(dtype)
    grads = torch.autograd.grad(y, leaves, dy, create_graph=True)
    others = torch.autograd.grad(exact, wide, dy.double(), create_graph=True)
    for found, other in zip(grads, others, strict=True):
        assert_half(found, other)
    # Each is linear in dy and in one of the two, so derivatives of them are such products again.
    v = torch.cos(others[0].detach()).to(dtype)
    (second,) = torch.autograd.grad(grads[0], leaves[1], v)
    assert_half(second, torch.autograd.grad(others[0], wide[1], v.double())[0])
    (mapped,) = torch.vmap(lambda x: pointwise(x, leaves[1], data_format=data_format))(
        leaves[0][None].detach()
    )
    assert_half(mapped, exact)


@pytest.mark.parametrize("data_format", FORMATS)
def test_derivatives_of_every_order_and_mode(data_format):
    leaves = [a.requires_grad_() for a in tensors(data_format, batch=1, channels=2, filters=3)]
    function = lambda *a: pointwise(*a, data_format=data_format)  # noqa: E731
    assert gradcheck(function, leaves, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, leaves, check_fwd_over_rev=True, check_rev_over_rev=True)
    x, kernel = (a.detach() for a in leaves)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        tangent = forward_ad.unpack_dual(function(dual, kernel)).tangent
    torch.testing.assert_close(tangent, by_conv2d(torch.ones_like(x), kernel, data_format))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (3, 1)])
def test_func_transforms(data_format, axes):
    def loss(x, kernel):
        return pointwise(x, kernel, data_format=data_format).sin().sum()

    gradient = torch.func.grad(loss, (0, 1))
    mapped = [
        a if axis is None else torch.stack([a, 2 * a, -a], axis)
        for a, axis in zip(tensors(data_format), axes, strict=True)
    ]
    found = torch.vmap(gradient, axes)(*mapped)
    for i in range(3):
        one = [
            a if axis is None else a.select(axis, i) for a, axis in zip(mapped, axes, strict=True)
        ]
        torch.testing.assert_close(tuple(g[i] for g in found), gradient(*one))
    x, kernel = tensors(data_format, channels=2, filters=2)
    hessian = torch.func.hessian(loss, 1)(x, kernel)
    expected = torch.func.hessian(lambda k: by_conv2d(x, k, data_format).sin().sum())(kernel)
    torch.testing.assert_close(hessian, expected)


def test_the_operations_keep_their_promises():
    x, kernel = (a.requires_grad_() for a in tensors("channels_first"))
    torch.library.opcheck(PRODUCT, (x, kernel.flatten(0, 2), True, False))
    torch.library.opcheck(CORRELATION, (x, x.detach().sin(), True))


def test_torch_compile_takes_it_whole():
    x, kernel = tensors("channels_last", torch.float32)
    kernel.requires_grad_()
    function = lambda x, k: pointwise(x, k, data_format="channels_last").sin().sum()  # noqa: E731
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    found, expected = (torch.autograd.grad(f(x, kernel), kernel) for f in (compiled, function))
    torch.testing.assert_close(found, expected)


def test_channels_last_memory_stays():
    x, kernel = tensors("channels_first", torch.float32)
    x = x.to(memory_format=torch.channels_last)
    y = pointwise(x, kernel, data_format="channels_first")
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, by_conv2d(x, kernel, "channels_first"))


def test_other_devices_autocast_and_empty_batches():
    x, kernel = tensors("channels_last", torch.float32)
    y = pointwise(x.to("meta"), kernel.to("meta"), data_format="channels_last")
    assert (y.device.type, tuple(y.shape)) == ("meta", (2, 3, 4, 7))
    with torch.autocast("cpu", torch.bfloat16):
        leaf = kernel.clone().requires_grad_()
        y = pointwise(x, leaf, data_format="channels_last")
        assert torch.equal(y, PRODUCT(x.bfloat16(), kernel[0, 0].bfloat16(), False, False))
        (dkernel,) = torch.autograd.grad(y.float().sum(), leaf)
    assert dkernel.dtype == torch.float32  # the leaf's, which autocast casts
    assert y.dtype == torch.bfloat16
    empty = x[:0].requires_grad_()
    y = pointwise(empty, kernel.requires_grad_(), data_format="channels_last")
    dx, dkernel = torch.autograd.grad(y.sum(), [empty, kernel])
    assert dx.shape == empty.shape
    assert not dkernel.any()


def test_what_does_not_fit_is_refused():
    x, kernel = tensors("channels_last")
    matrix = kernel.flatten(0, 2)
    with pytest.raises(ValueError, match=r"matrix for 5 channels .*=\(7, 5\)"):
        PRODUCT(x, matrix.mT, False, False)
    with pytest.raises(ValueError, match="4 axes"):
        PRODUCT(x[0], matrix, False, False)
    with pytest.raises(TypeError, match="float32"):
        PRODUCT(x, matrix.float(), False, False)
    with pytest.raises(TypeError, match="complex128"):
        PRODUCT(x.cdouble(), matrix.cdouble(), False, False)
    with pytest.raises(ValueError, match="same pixels"):
        CORRELATION(x, x[:, 1:], False)
