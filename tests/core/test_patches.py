"""Depthwise kernels that only select: with a 1x1 convolution after, an ordinary convolution."""

from __future__ import annotations

import numpy as np
import pytest

import sepconv
from sepconv import reference


def selecting_kernel(kernel_height, kernel_width, channels, dtype):
    """Output channel c * taps + tap is input channel c under that tap."""
    taps = kernel_height * kernel_width
    eye = np.eye(taps, dtype=dtype).reshape(kernel_height, kernel_width, 1, taps)
    return np.tile(eye, (1, 1, channels, 1))


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values(seed, dtype):
    rng = np.random.default_rng(seed)
    size = [(3, 3), (1, 3), (5, 2), (2, 2), (7, 7)][rng.integers(5)]
    channels, filters = int(rng.choice([1, 3, 8, 17])), int(rng.choice([1, 5, 32, 40]))
    x = rng.standard_normal((2, *rng.integers(8, 19, 2), channels)).astype(dtype)
    kernel = selecting_kernel(*size, channels, dtype)
    pointwise = rng.standard_normal((1, 1, kernel.shape[2] * kernel.shape[3], filters))
    pointwise = pointwise.astype(dtype)
    options = {
        "strides": tuple(int(s) for s in rng.integers(1, 4, 2)),
        "padding": ["same", "valid", ((2, 1), (0, 3))][rng.integers(3)],
        "activation": [None, "relu"][rng.integers(2)],
        "data_format": ["channels_last", "channels_last", "channels_first"][rng.integers(3)],
    }
    if options["data_format"] == "channels_first":
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    bias = rng.standard_normal(filters).astype(dtype)
    received = sepconv.separable_conv2d(x, kernel, pointwise, bias, **options)
    expected = reference.separable_conv2d(x, kernel, pointwise, bias, **options)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    assert np.linalg.norm(received - expected) <= tolerance * np.linalg.norm(expected)


def test_a_kernel_that_nearly_selects_is_computed():
    x = np.random.default_rng(0).standard_normal((1, 6, 6, 3)).astype("float32")
    kernel = selecting_kernel(3, 3, 3, "float32")
    kernel[1, 1, 2, 0] = 0.5
    pointwise = np.random.default_rng(1).standard_normal((1, 1, 27, 4)).astype("float32")
    received = sepconv.separable_conv2d(x, kernel, pointwise, padding="same")
    expected = reference.separable_conv2d(x, kernel, pointwise, padding="same")
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)
