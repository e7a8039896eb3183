"""PyTorch's batch normalization: values, derivatives, transforms, compilation, other devices."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from sepconv.engines.torch.batch_norm import batch_norm

FORWARD = torch.ops.sepconv.batch_norm
GRADIENTS = torch.ops.sepconv.batch_norm_gradients
SHAPES = [((4, 3, 5, 6), 3), ((4, 6, 3, 5), 1), ((40, 70), 1), ((3, 2, 70), 1), ((7,), 0)]


def operands(shape, axis, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    vector = (shape[axis],)
    return [
        torch.randn(s, dtype=dtype, generator=generator) + offset
        for s, offset in ((shape, 3), (vector, 2), (vector, 0))
    ]


def by_torch(x, gamma, beta, axis, epsilon=1e-3):
    y = torch.nn.functional.batch_norm(
        x.movedim(axis, 1) if x.dim() > 1 else x[None],
        None,
        None,
        gamma,
        beta,
        training=True,
        eps=epsilon,
    )
    return y.movedim(1, axis)


@pytest.mark.parametrize(("shape", "axis"), SHAPES[:4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients(shape, axis, dtype):
    leaves = [a.requires_grad_() for a in operands(shape, axis, dtype)]
    wide = [a.detach().double().requires_grad_() for a in leaves]
    y, mean, variance = batch_norm(*leaves, axis=axis, epsilon=1e-3)
    assert y.is_contiguous()
    assert not mean.requires_grad
    assert not variance.requires_grad
    expected = by_torch(*wide, axis)
    near = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-11}
    others = [i for i in range(len(shape)) if i != axis]
    x, dy = wide[0].detach(), torch.cos(expected.detach())
    found = y, mean, variance, *torch.autograd.grad(y, leaves, dy.to(dtype))
    moments = x.mean(others), x.var(others, correction=0)
    for a, b in zip(
        found, (expected, *moments, *torch.autograd.grad(expected, wide, dy)), strict=True
    ):
        torch.testing.assert_close(a.double(), b, **near)


HALVES = [torch.bfloat16, torch.float16]


def half_operands(shape, axis, dtype):
    """Of a half type, with numbers of channels in float32."""
    x, *vectors = operands(shape, axis, torch.float32)
    return [a.requires_grad_() for a in (x.to(dtype), *vectors)]


@pytest.mark.parametrize(("shape", "axis"), SHAPES[:4])
@pytest.mark.parametrize("dtype", HALVES)
def test_a_half_type_is_computed_in_float32(shape, axis, dtype):
    leaves = half_operands(shape, axis, dtype)
    wide = [a.detach().float().requires_grad_() for a in leaves]
    y, mean, variance = batch_norm(*leaves, axis=axis, epsilon=1e-3)
    expected, *moments = batch_norm(*wide, axis=axis, epsilon=1e-3)
    assert y.dtype == dtype
    torch.testing.assert_close(y, expected.to(dtype))
    torch.testing.assert_close((mean, variance), tuple(moments))
    dy = torch.cos(expected.detach()).to(dtype)
    dx, *rest = torch.autograd.grad(y, leaves, dy)
    exact, *others = torch.autograd.grad(expected, wide, dy.float())
    torch.testing.assert_close(dx, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)
    for a, b in zip(rest, others, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b)
    stock = by_torch(*leaves, axis)
    torch.testing.assert_close(y, stock)
    torch.testing.assert_close(dx, torch.autograd.grad(stock, leaves[0], dy)[0], atol=2e-2, rtol=0)


@pytest.mark.parametrize("dtype", HALVES)
def test_derivatives_of_a_half_type(dtype):
    leaves = half_operands((4, 3, 5), 1, dtype)
    wide = [a.detach().double().requires_grad_() for a in leaves]

    def second(x, gamma, beta):
        y = batch_norm(x, gamma, beta, axis=1, epsilon=1e-3)[0]
        slopes = torch.autograd.grad(y.sin().sum(), (x, gamma, beta), create_graph=True)
        return torch.autograd.grad(sum(s.sin().sum() for s in slopes), (x, gamma))

    near = {"rtol": 0.1, "atol": 0.1} if dtype == torch.bfloat16 else {"rtol": 2e-2, "atol": 2e-2}
    for a, b, leaf in zip(second(*leaves), second(*wide), leaves, strict=False):
        assert a.dtype == leaf.dtype
        torch.testing.assert_close(a.double(), b, **near)
    x, gamma, beta = (a.detach() for a in leaves)
    _, tangent = torch.func.jvp(
        lambda *a: batch_norm(*a, axis=1, epsilon=1e-3)[0],
        (x, gamma, beta),
        (torch.cos(x), torch.sin(gamma), torch.sin(beta)),
    )
    _, exact = torch.func.jvp(
        lambda *a: by_torch(*a, 1),
        (x.double(), gamma.double(), beta.double()),
        (torch.cos(x).double(), torch.sin(gamma).double(), torch.sin(beta).double()),
    )
    assert tangent.dtype == dtype
    torch.testing.assert_close(tangent.double(), exact, **near)
    mapped = torch.vmap(lambda x: batch_norm(x, gamma, beta, axis=1, epsilon=1e-3)[0])(
        torch.stack([x, 2 * x])
    )
    for i in (1, 2):
        y = batch_norm(i * x, gamma, beta, axis=1, epsilon=1e-3)[0]
        torch.testing.assert_close(mapped[i - 1], y)


def test_one_value_a_channel():
    x, gamma, beta = operands((7,), 0)
    y, mean, variance = batch_norm(x, gamma, beta, axis=0, epsilon=1e-3)
    assert torch.equal(y, beta)
    assert torch.equal(mean, x)
    assert not variance.any()


@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 4), 2), ((3, 2, 4), 1)])
def test_derivatives_of_every_order_and_mode(shape, axis):
    leaves = [a.requires_grad_() for a in operands(shape, axis)]
    function = lambda *a: batch_norm(*a, axis=axis, epsilon=1e-3)[0]  # noqa: E731
    assert gradcheck(function, leaves, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, leaves, check_fwd_over_rev=True, check_rev_over_rev=True)
    x, gamma, beta = (a.detach() for a in leaves)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.cos(x))
        tangent = forward_ad.unpack_dual(function(dual, gamma, beta)).tangent
    _, expected = torch.func.jvp(lambda x: by_torch(x, gamma, beta, axis), (x,), (torch.cos(x),))
    torch.testing.assert_close(tangent, expected)


@pytest.mark.parametrize("axes", [(0, None, None), (None, 0, 0), (2, 0, None)])
def test_func_transforms(axes):
    def loss(*arrays):
        return batch_norm(*arrays, axis=1, epsilon=1e-3)[0].sin().sum()

    gradient = torch.func.grad(loss, (0, 1, 2))
    mapped = [
        a if axis is None else torch.stack([a, 2 * a, -a], axis)
        for a, axis in zip(operands((4, 3), 1), axes, strict=True)
    ]
    for function in (gradient, lambda *a: batch_norm(*a, axis=1, epsilon=1e-3)):
        found = torch.vmap(function, axes)(*mapped)
        for i in range(3):
            one = [
                a if axis is None else a.select(axis, i)
                for a, axis in zip(mapped, axes, strict=True)
            ]
            torch.testing.assert_close(tuple(g[i] for g in found), function(*one))


def test_the_operations_keep_their_promises():
    x, gamma, beta = (a.requires_grad_() for a in operands((4, 3, 5), 1))
    torch.library.opcheck(FORWARD, (x, gamma, beta, 1, 1e-3))
    _, mean, variance = FORWARD(x, gamma, beta, 1, 1e-3)
    plain = [a.detach() for a in (x, gamma, mean, variance)]
    torch.library.opcheck(GRADIENTS, (*plain, plain[0].sin(), 1, 1e-3))
    half = half_operands((4, 3, 5), 1, torch.bfloat16)
    torch.library.opcheck(FORWARD, (*half, 1, 1e-3), test_utils=("test_schema", "test_faketensor"))


def test_torch_compile_takes_it_whole():
    x, gamma, beta = operands((4, 3, 5, 6), 3, torch.float32)
    gamma.requires_grad_()
    function = lambda *a: batch_norm(*a, axis=3, epsilon=1e-3)[0].sin().sum()  # noqa: E731
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    found, expected = (torch.autograd.grad(f(x, gamma, beta), gamma) for f in (compiled, function))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("axis", "to"), [(1, -1), (3, 1)])
def test_memory_in_another_order_stays(axis, to):
    x, gamma, beta = operands((4, 6, 5, 6), axis, torch.float32)
    moved = x.movedim(axis, to).contiguous().movedim(to, axis)
    assert not moved.is_contiguous()
    y, mean, _ = batch_norm(moved, gamma, beta, axis=axis, epsilon=1e-3)
    assert y.movedim(axis, to).is_contiguous()
    expected, other, _ = batch_norm(x, gamma, beta, axis=axis, epsilon=1e-3)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(mean, other)
    strided = torch.cat([x, x], 2)[:, :, ::2]  # dense in no order
    torch.testing.assert_close(
        batch_norm(strided, gamma, beta, axis=axis, epsilon=1e-3)[0],
        by_torch(strided, gamma, beta, axis),
    )


def test_other_devices():
    arrays = [a.to("meta") for a in operands((4, 3, 5, 6), 3, torch.float32)]
    y, mean, variance = batch_norm(*arrays, axis=3, epsilon=1e-3)
    assert (y.device.type, tuple(y.shape)) == ("meta", (4, 3, 5, 6))
    assert tuple(mean.shape) == tuple(variance.shape) == (6,)
    arrays[0] = arrays[0].bfloat16()
    y, mean, variance = batch_norm(*arrays, axis=3, epsilon=1e-3)
    assert (y.dtype, mean.dtype, variance.dtype) == (torch.bfloat16, torch.float32, torch.float32)


def test_autocast_keeps_the_dtype_of_x():
    leaves = half_operands((4, 3, 5, 6), 3, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = batch_norm(*leaves, axis=3, epsilon=1e-3)[0]
        stock = by_torch(*leaves, 3)
    assert y.dtype == stock.dtype == torch.bfloat16
    torch.testing.assert_close(y, stock)


def test_what_does_not_fit_is_refused():
    x, gamma, beta = operands((4, 3, 5, 6), 3)
    with pytest.raises(ValueError, match=r"each of 3 channels .*\(6,\)"):
        FORWARD(x, gamma, beta, 1, 1e-3)
    with pytest.raises(ValueError, match="axis=4"):
        FORWARD(x, gamma, beta, 4, 1e-3)
    with pytest.raises(TypeError, match="float32"):
        FORWARD(x, gamma.float(), beta, 3, 1e-3)
    with pytest.raises(TypeError, match="float16"):
        FORWARD(x.half(), gamma.half(), beta.half(), 3, 1e-3)
    with pytest.raises(ValueError, match="dy must be like x"):
        GRADIENTS(x, gamma, beta, beta, x[1:], 3, 1e-3)
