"""The 1x1 convolution alone against NumPy's product in float64: values, gradients, errors."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.configurations import TOLERANCE

import sepconv


def _error(value, expected):
    return np.linalg.norm(value - expected) / max(np.linalg.norm(expected), 1e-30)


@pytest.mark.parametrize("seed", range(60))
def test_values_and_gradients(seed):
    rng = np.random.default_rng(seed)
    dtype = ("float32", "float64")[seed % 2]
    data_format = ("channels_last", "channels_first")[seed // 2 % 2]
    batch, height, width = (int(v) for v in rng.integers((0, 1, 1), (4, 20, 20)))
    channels, filters = (int(v) for v in rng.choice([1, 3, 8, 16, 17, 40, 129, 300], 2))
    activation = (None, "relu", "relu6")[seed % 3]
    last = rng.standard_normal((batch, height, width, channels))
    kernel, bias = rng.standard_normal((1, 1, channels, filters)), rng.standard_normal(filters)
    dy = rng.standard_normal((batch, height, width, filters))
    y = last @ kernel[0, 0] + bias
    if activation:
        y = np.clip(y, 0, 6 if activation == "relu6" else None)
    expected = (dy @ kernel[0, 0].T, np.einsum("nhwc,nhwf->cf", last, dy), dy.sum((0, 1, 2)))

    def arranged(x):
        x = np.moveaxis(x, 3, 1) if data_format == "channels_first" else x
        return np.ascontiguousarray(x, dtype)

    x, k, b = arranged(last), kernel.astype(dtype), bias.astype(dtype)
    result = sepconv.pointwise_conv2d(x, k, b, data_format=data_format, activation=activation)
    assert result.dtype == dtype
    assert _error(result, arranged(y)) < TOLERANCE[dtype]
    grads = sepconv.pointwise_conv2d_grad(x, k, arranged(dy), data_format=data_format)
    assert _error(grads.x, arranged(expected[0])) < TOLERANCE[dtype]
    assert _error(grads.pointwise_kernel[0, 0], expected[1]) < TOLERANCE[dtype]
    assert np.abs(grads.bias - expected[2]).max(initial=0) < TOLERANCE[dtype] * max(dy.size, 1)


@pytest.mark.parametrize(
    ("x", "kernel", "options", "message"),
    [
        ((1, 2, 3), (1, 1, 3, 2), {}, "x must have 4 axes"),
        ((1, 2, 2, 3), (1, 1, 4, 2), {}, r"\(1, 1, 3, filters\)"),
        ((1, 0, 2, 3), (1, 1, 3, 2), {}, "must be positive"),
        ((1, 2, 2, 3), (1, 1, 3, 2), {"data_format": [1]}, r"data_format must be .*\[1\]"),
        ((1, 2, 2, 3), (1, 1, 3, 2), {"data_format": "nhwc"}, "data_format must be"),
        ((1, 2, 2, 3), (1, 1, 3, 2), {"activation": "gelu"}, "activation must be one of"),
        ((1, 2, 2, 3), (1, 1, 3, 2), {"bias": np.ones(3)}, r"bias must have the shape \(2,\)"),
        ((1, 2, 2, 3), (1, 1, 3, 2), {"out": np.ones((1, 2, 2, 3))}, "out must have the shape"),
    ],
)
def test_errors(x, kernel, options, message):
    with pytest.raises(ValueError, match=message):
        sepconv.pointwise_conv2d(np.ones(x), np.ones(kernel), **options)
