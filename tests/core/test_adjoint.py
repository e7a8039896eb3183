"""NumPy: <A x, y> = <x, A* y> for the convolution as a linear map of each of its arguments."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.configurations import configurations

import sepconv


@pytest.mark.parametrize("chunk", range(10))
def test_gradients_are_adjoints(chunk):
    for c in configurations(20, seed=7000 + chunk, dtypes=("float64",)):
        arrays = [a for name, a in c.arrays().items() if name != "bias"]
        kind = "depthwise" if c.filters is None else "separable"
        y = getattr(sepconv, f"{kind}_conv2d")(*arrays, **c.options)
        dy = c.gradient(y.shape)
        grads = getattr(sepconv, f"{kind}_conv2d_grad")(*arrays, dy, **c.options)
        scale = np.linalg.norm(y) * np.linalg.norm(dy) + 1e-300
        # y is linear in each argument by itself, so each inner product is <y, dy>.
        for name, array, grad in zip(grads._fields, arrays, grads, strict=False):
            distance = abs(np.vdot(y, dy) - np.vdot(array, grad))
            assert distance / scale < 1e-13, (name, c)
        # The bias enters as its sum over pixels.
        axis = 1 if c.data_format == "channels_first" else 3
        spatial = tuple(a for a in range(4) if a != axis)
        assert np.allclose(grads.bias, dy.sum(spatial), rtol=1e-12, atol=1e-12)
