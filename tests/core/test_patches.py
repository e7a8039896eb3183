"""Ordinary convolutions: by their kernel, and as a depthwise one that selects and a 1x1 one."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.blocks import selecting_kernel

import sepconv
from sepconv import reference


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
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    expected = reference.separable_conv2d(x, kernel, pointwise, bias, **options)
    ordinary = pointwise.reshape(channels, *size, filters).transpose(1, 2, 0, 3)
    for received in (
        sepconv.separable_conv2d(x, kernel, pointwise, bias, **options),
        sepconv.fused_conv2d(x, None, ordinary, bias=bias, **options),
        sepconv.prepare_conv2d(None, ordinary, bias=bias, **options)(x),
        reference.fused_conv2d(x, None, ordinary, bias=bias, **options),
    ):
        assert np.linalg.norm(received - expected) <= tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("number", [np.inf, np.nan])
def test_numbers_that_are_not_finite(number, data_format):
    rng = np.random.default_rng(0)
    image, weights = rng.standard_normal((1, 6, 6, 2)), rng.standard_normal((3, 3, 2, 4))
    for array in (image, weights):
        x, kernel = image.copy(), weights.copy()
        (x if array is image else kernel)[0, 0, 0, 1] = number
        if data_format == "channels_first":
            x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        options = {"padding": "same", "data_format": data_format}
        with np.errstate(invalid="ignore"):
            expected = reference.fused_conv2d(x, None, kernel, **options)
        received = sepconv.fused_conv2d(x, None, kernel, **options)
        assert not np.isfinite(received).all()
        np.testing.assert_allclose(received, expected, rtol=1e-9)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_result_is_the_same_at_any_number_of_threads(threads):
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((3, 3, 8, 70)).astype("float32")
    before = sepconv.num_threads()
    for shape, data_format in (
        ((2, 31, 33, 8), "channels_last"),
        ((2, 8, 31, 33), "channels_first"),
    ):
        x = rng.standard_normal(shape).astype("float32")
        expected = sepconv.fused_conv2d(x, None, kernel, data_format=data_format)
        try:
            sepconv.set_num_threads(threads)
            received = sepconv.fused_conv2d(x, None, kernel, data_format=data_format)
        finally:
            sepconv.set_num_threads(before)
        np.testing.assert_array_equal(received, expected)


@pytest.mark.parametrize(
    ("kernel", "options", "message"),
    [
        (np.ones((3, 3, 4, 5)), {}, r"\(3, 3, 3, filters\)"),
        (np.ones((3, 3, 3)), {}, r"\(kernel_height, kernel_width, 3, filters\)"),
        (np.ones((3, 3, 3, 0)), {}, "filters"),
        (np.ones((7, 3, 3, 5)), {}, "empty"),
        (np.ones((3, 3, 3, 5)), {"depthwise_bias": np.ones(3)}, "acts between"),
        (np.ones((3, 3, 3, 5)), {"residual": np.ones((1, 4, 4, 5))}, "residual must have"),
        (np.ones((3, 3, 3, 5)), {"bias": np.ones(3)}, r"bias must have the shape \(5,\)"),
    ],
)
def test_errors(kernel, options, message):
    with pytest.raises(ValueError, match=message):
        sepconv.fused_conv2d(np.ones((1, 4, 4, 3)), None, kernel, **options)


def test_a_kernel_that_nearly_selects_is_computed():
    x = np.random.default_rng(0).standard_normal((1, 6, 6, 3)).astype("float32")
    kernel = selecting_kernel(3, 3, 3, "float32")
    kernel[1, 1, 2, 0] = 0.5
    pointwise = np.random.default_rng(1).standard_normal((1, 1, 27, 4)).astype("float32")
    received = sepconv.separable_conv2d(x, kernel, pointwise, padding="same")
    expected = reference.separable_conv2d(x, kernel, pointwise, padding="same")
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)
