"""PyTorch: <A x, y> = <x, A* y> for the convolution as a linear map of each of its arguments."""

from __future__ import annotations

import pytest
import torch
from helpers.configurations import configurations

from sepconv.torch import depthwise_conv2d, separable_conv2d


@pytest.mark.parametrize("chunk", range(3))
def test_gradients_are_adjoints(chunk):
    for c in configurations(15, seed=500 + chunk, dtypes=("float64",)):
        arrays = {k: torch.from_numpy(a) for k, a in c.arrays().items() if k != "bias"}
        call = depthwise_conv2d if c.filters is None else separable_conv2d
        for name in arrays:
            variable = arrays[name].requires_grad_()
            y = call(*arrays.values(), **c.options)
            dy = torch.from_numpy(c.gradient(y.shape))
            (adjoint,) = torch.autograd.grad(y, variable, dy)
            arrays[name] = variable.detach()
            # y is linear in this argument, so <A x, dy> = <y, dy>.
            left, right = (y * dy).sum(), (arrays[name] * adjoint).sum()
            scale = (y.norm() * dy.norm()).item() + 1e-300
            assert abs(left - right).item() / scale < 1e-13, (name, c)
