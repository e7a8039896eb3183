"""PyTorch: vmap over every combination of arguments equals a loop."""

from __future__ import annotations

import itertools

import pytest
import torch

from sepconv.torch import depthwise_conv2d, separable_conv2d

COUNT = 3
SHAPES = ((2, 5, 4, 2), (3, 2, 2, 2), (1, 1, 4, 3), (3,))
OPTIONS = {
    "channels_last": {"padding": "same", "strides": (1, 2), "activation": "relu"},
    "channels_first": {
        "padding": ((1, 0), (0, 2)),
        "dilation_rate": (1, 2),
        "data_format": "channels_first",
        "activation": "relu6",
    },
}


def _arguments(axes, data_format, shapes=SHAPES):
    generator = torch.Generator().manual_seed(1)
    shapes = list(shapes)
    if data_format == "channels_first":
        n, h, w, c = shapes[0]
        shapes[0] = (n, c, h, w)
    tensors = []
    for axis, shape in zip(axes, shapes, strict=True):
        full = list(shape)
        if axis is not None:
            full.insert(axis, COUNT)
        tensors.append(torch.randn(full, dtype=torch.float64, generator=generator))
    return tensors


def _one(tensors, axes, index):
    return [
        t if axis is None else t.select(axis, index) for t, axis in zip(tensors, axes, strict=True)
    ]


AXES = [a for a in itertools.product((0, None), repeat=4) if a != (None,) * 4]


@pytest.mark.parametrize("axes", [*AXES, (3, 2, 1, 1), (None, 4, 3, None)], ids=str)
@pytest.mark.parametrize("data_format", OPTIONS)
def test_values_and_gradients(axes, data_format):
    options = OPTIONS[data_format]
    tensors = _arguments(axes, data_format)

    def function(*arguments):
        return separable_conv2d(*arguments, **options)

    def gradients(*arguments):
        return torch.func.grad(lambda *a: function(*a).square().sum(), (0, 1, 2, 3))(*arguments)

    y = torch.vmap(function, axes)(*tensors)
    expected = torch.stack([function(*_one(tensors, axes, i)) for i in range(COUNT)])
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    grads = torch.vmap(gradients, axes)(*tensors)
    loop = [gradients(*_one(tensors, axes, i)) for i in range(COUNT)]
    for grad, *others in zip(grads, *loop, strict=True):
        torch.testing.assert_close(grad, torch.stack(others), rtol=1e-12, atol=1e-12)


def test_gradient_of_the_input_alone():
    x, k = torch.randn(COUNT, 1, 5, 5, 2), torch.randn(3, 3, 2, 1)
    gradient = torch.func.grad(lambda x: depthwise_conv2d(x, k).square().sum())
    expected = torch.stack([gradient(one) for one in x])
    torch.testing.assert_close(torch.vmap(gradient)(x), expected)


def test_grad_of_vmap():
    x = torch.randn(COUNT, 2, 5, 5, 2, dtype=torch.float64)
    k = torch.randn(3, 3, 2, 1, dtype=torch.float64, requires_grad=True)
    torch.vmap(lambda x: depthwise_conv2d(x, k))(x).square().sum().backward()
    mapped, k.grad = k.grad, None
    depthwise_conv2d(x.flatten(0, 1), k).square().sum().backward()
    torch.testing.assert_close(mapped, k.grad)


def test_ensemble_of_kernels():
    x = torch.randn(2, 5, 5, 2)
    kernels = torch.randn(COUNT, 3, 3, 2, 2)
    y = torch.vmap(depthwise_conv2d, (None, 0))(x, kernels)
    torch.testing.assert_close(y, torch.stack([depthwise_conv2d(x, k) for k in kernels]))
