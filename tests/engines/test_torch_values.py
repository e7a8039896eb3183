"""PyTorch: values and gradients against torch.nn.functional.conv2d and against the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.configurations import Configuration, assert_near, configurations
from torch.nn import functional

import sepconv.torch
from sepconv import reference

CHUNK = 20


def _stock(arrays: dict[str, torch.Tensor], c: Configuration) -> torch.Tensor:
    """The convolution by PyTorch's own operations, before any activation."""
    x, kernel = arrays["x"], arrays["depthwise_kernel"]
    if c.data_format == "channels_last":
        x = x.permute(0, 3, 1, 2)
    if c.padding == "same":
        pads = []
        for n, k, s, d in zip(c.size, c.kernel, c.strides, c.dilation_rate, strict=True):
            total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            pads.append((total // 2, total - total // 2))
    else:
        pads = ((0, 0), (0, 0)) if c.padding == "valid" else c.padding
    x = functional.pad(x, [*pads[1], *pads[0]])
    weight = kernel.permute(2, 3, 0, 1).reshape(-1, 1, *c.kernel)
    y = functional.conv2d(x, weight, None, c.strides, 0, c.dilation_rate, c.channels)
    if c.filters is not None:
        y = functional.conv2d(y, arrays["pointwise_kernel"].permute(3, 2, 0, 1))
    if c.bias:
        y = y + arrays["bias"][:, None, None]
    return y.permute(0, 2, 3, 1) if c.data_format == "channels_last" else y


def _ours(arrays: dict[str, torch.Tensor], c: Configuration) -> torch.Tensor:
    call = sepconv.torch.depthwise_conv2d if c.filters is None else sepconv.torch.separable_conv2d
    return call(*arrays.values(), activation=c.activation, **c.options)


def _named(arrays: dict[str, np.ndarray], dtype: str | None = None) -> dict[str, torch.Tensor]:
    return {
        name: torch.tensor(a if dtype is None else a.astype(dtype), requires_grad=True)
        for name, a in arrays.items()
    }


def _check(c: Configuration) -> None:
    arrays = c.arrays()
    ours, stock = _named(arrays), _named(arrays, "float64")
    y, expected = _ours(ours, c), _stock(stock, c)
    dy = torch.from_numpy(c.gradient(y.shape))
    assert y.is_contiguous()
    assert_near(y.detach(), _activated(expected, c.activation).detach(), c.dtype, c)
    y.backward(dy)
    # The derivative at a kink is taken where ours lies, not where rounding put the other.
    mask = torch.ones_like(y)
    if c.activation is not None:
        mask = (y > 0) & (y < 6) if c.activation == "relu6" else y > 0
    expected.backward((dy * mask).double())
    for name, array in ours.items():
        assert_near(array.grad, stock[name].grad, c.dtype, (name, c))


def _activated(y: torch.Tensor, activation: str | None) -> torch.Tensor:
    return {None: lambda v: v, "relu": functional.relu, "relu6": functional.relu6}[activation](y)


@pytest.mark.parametrize("chunk", range(12))
def test_random_configurations(chunk):
    for c in configurations(CHUNK, seed=100 + chunk):
        _check(c)


@pytest.mark.parametrize(
    ("strides", "dilation_rate", "padding", "data_format"),
    [
        ((1, 2), (1, 1), "same", "channels_last"),
        ((2, 1), (3, 2), "same", "channels_first"),
        ((3, 2), (2, 2), "valid", "channels_last"),
        ((2, 3), (1, 3), ((4, 0), (1, 5)), "channels_first"),
    ],
)
@pytest.mark.parametrize("filters", [None, 6])
def test_unequal_strides_dilation_and_explicit_padding(
    strides, dilation_rate, padding, data_format, filters
):
    _check(
        Configuration(
            batch=2,
            size=(13, 12),
            channels=5,
            kernel=(3, 4),
            multiplier=2,
            filters=filters,
            strides=strides,
            padding=padding,
            dilation_rate=dilation_rate,
            data_format=data_format,
            dtype="float64",
            bias=True,
            activation=None,
            seed=3,
        )
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_computed_in_float32(dtype):
    (c,) = configurations(1, seed=7, dtypes=("float32",), channels=(8,))
    arrays = {k: torch.from_numpy(a).to(dtype).requires_grad_() for k, a in c.arrays().items()}
    y = _ours(arrays, c)
    assert y.dtype == dtype
    wide = {k: a.detach().float().requires_grad_() for k, a in arrays.items()}
    expected = _ours(wide, c)
    assert torch.equal(y, expected.to(dtype))
    dy = torch.randn(y.shape).to(dtype)
    y.backward(dy)
    expected.backward(dy.float())
    for name, array in arrays.items():
        assert torch.equal(array.grad, wide[name].grad.to(dtype))


def test_autocast_computes_in_its_dtype():
    x, k, p = torch.randn(1, 6, 6, 4), torch.randn(3, 3, 4, 1), torch.randn(1, 1, 4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        y = sepconv.torch.separable_conv2d(x, k, p)
        mixed = sepconv.torch.separable_conv2d(x.bfloat16(), k, p)
        double = sepconv.torch.separable_conv2d(x.double(), k.double(), p.double())
    assert y.dtype == mixed.dtype == torch.bfloat16
    assert torch.equal(y, mixed)
    assert double.dtype == torch.float64
    expected = sepconv.torch.separable_conv2d(x.bfloat16(), k.bfloat16(), p.bfloat16())
    assert torch.equal(y, expected)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_one_dimension_and_causal(data_format):
    random = np.random.default_rng(0)
    x = random.standard_normal((2, 9, 3))
    kernel, pointwise = random.standard_normal((3, 3, 2)), random.standard_normal((1, 6, 4))
    expected = reference.separable_conv2d(
        x[:, None], kernel[None], pointwise[None], strides=(1, 2), dilation_rate=(1, 2),
        padding=((0, 0), (4, 0)),
    )[:, 0]  # fmt: skip
    if data_format == "channels_first":
        x, expected = x.transpose(0, 2, 1), expected.transpose(0, 2, 1)
    y = sepconv.torch.separable_conv1d(
        *(torch.from_numpy(a) for a in (x, kernel, pointwise)),
        strides=2,
        padding="causal",
        dilation_rate=2,
        data_format=data_format,
    )
    assert_near(y, expected, "float64")


def test_non_contiguous_inputs_give_the_same():
    x = torch.randn(6, 3, 7, 2, dtype=torch.float64).permute(1, 2, 0, 3)
    k = torch.randn(2, 3, 2, 6, dtype=torch.float64)[..., ::2]
    p = torch.randn(5, 6, 1, 1, dtype=torch.float64).permute(2, 3, 1, 0)
    b = torch.randn(10, dtype=torch.float64)[::2]
    arguments = [t.requires_grad_() for t in (x, k, p, b)]
    plain = [t.detach().contiguous().requires_grad_() for t in arguments]
    y = sepconv.torch.separable_conv2d(*arguments)
    expected = sepconv.torch.separable_conv2d(*plain)
    assert torch.equal(y, expected)
    dy = torch.randn(*reversed(y.shape), dtype=torch.float64).permute(3, 2, 1, 0)
    grads = torch.autograd.grad(y, arguments, dy)
    for grad, other in zip(grads, torch.autograd.grad(expected, plain, dy), strict=True):
        assert torch.equal(grad, other)


def test_empty_batch():
    k, p = (torch.randn(*s, requires_grad=True) for s in ((3, 3, 2, 1), (1, 1, 2, 5)))
    y = sepconv.torch.separable_conv2d(torch.empty(0, 8, 8, 2), k, p)
    assert y.shape == (0, 6, 6, 5)
    y.sum().backward()
    assert torch.equal(k.grad, torch.zeros_like(k))
    assert torch.equal(p.grad, torch.zeros_like(p))


def test_takes_numpy_arrays_and_lists():
    y = sepconv.torch.depthwise_conv2d(np.ones((1, 2, 2, 1), "float32"), [[[[2.0]]]])
    assert torch.equal(y, torch.full((1, 2, 2, 1), 2.0))


def test_inference_mode():
    x, k = torch.randn(1, 5, 5, 2), torch.randn(3, 3, 2, 1, requires_grad=True)
    expected = sepconv.torch.depthwise_conv2d(x, k)
    with torch.inference_mode():
        y = sepconv.torch.depthwise_conv2d(x, k)
    assert y.is_inference()
    assert torch.equal(y, expected)


def test_large_pads_and_kernels_beyond_the_input():
    for size, kernel in (((1, 1), (7, 6)), ((2, 31), (16, 31))):
        _check(
            Configuration(
                1, size, 3, kernel, 1, 4, (1, 1), "same", (1, 1), "channels_last", "float32",
                True, "relu", 5,
            )
        )  # fmt: skip
