"""A block of an inference network on NumPy arrays against the reference: values and errors."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.blocks import random_block
from helpers.configurations import assert_near

import sepconv
from sepconv import engines, reference


@pytest.mark.parametrize("seed", range(200))
def test_values(seed):
    arrays, options = random_block(seed)
    y = sepconv.fused_conv2d(**arrays, **options)
    expected = reference.fused_conv2d(**arrays, **options)
    assert y.dtype == arrays["x"].dtype
    assert_near(y, expected, str(y.dtype), (seed, options))


def test_the_result_is_the_same_at_any_number_of_threads():
    arrays, options = random_block(0, "float32")
    before = sepconv.num_threads()
    try:
        results = []
        for count in (1, 2, 5):
            sepconv.set_num_threads(count)
            results.append(sepconv.fused_conv2d(**arrays, **options))
    finally:
        sepconv.set_num_threads(before)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_keras_calls_on_numpy_takes_half_precision_too(dtype):
    arrays, options = random_block(3, "float32")
    given = {name: a if a is None else a.astype(dtype) for name, a in arrays.items()}
    y = engines.load("numpy").fused_conv2d(**given, **options)
    wide = {name: a if a is None else a.astype("float64") for name, a in given.items()}
    expected = reference.fused_conv2d(**wide, **options)
    assert y.dtype == dtype
    bound = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-12}[dtype]
    assert np.linalg.norm(y - expected) <= bound * np.linalg.norm(expected)


def test_a_batch_of_none():
    y = sepconv.fused_conv2d(np.ones((0, 4, 4, 3)), np.ones((3, 3, 3, 1)), np.ones((1, 1, 3, 5)))
    assert y.shape == (0, 2, 2, 5)


def test_out_is_filled_and_returned():
    x, kernel = np.ones((1, 2, 2, 3)), np.ones((1, 1, 3, 4))
    out = np.zeros((1, 2, 2, 4))
    assert sepconv.fused_conv2d(x, None, kernel, out=out) is out
    assert (out == 3).all()
    with pytest.raises(ValueError, match="share memory"):
        sepconv.fused_conv2d(x, None, kernel, residual=out, out=out)


X, DEPTHWISE, POINTWISE = np.ones((1, 4, 4, 3)), np.ones((3, 3, 3, 2)), np.ones((1, 1, 6, 5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "At least one of"),
        ({"depthwise_kernel": DEPTHWISE, "activation": "gelu"}, "activation must be one of"),
        ({"depthwise_kernel": DEPTHWISE, "depthwise_activation": "relu"}, "acts between"),
        ({"depthwise_kernel": DEPTHWISE, "depthwise_bias": np.ones(6)}, "acts between"),
        ({"depthwise_kernel": DEPTHWISE, "residual": X}, "give a pointwise_kernel"),
        ({"pointwise_kernel": POINTWISE}, r"\(1, 1, 3, filters\)"),
        ({"pointwise_kernel": np.ones((1, 1, 3, 5)), "padding": ((1, 1), (1, 1))}, "padding"),
        ({"pointwise_kernel": np.ones((1, 1, 3, 5)), "residual": X}, "residual must have"),
        (
            {
                "depthwise_kernel": DEPTHWISE,
                "pointwise_kernel": POINTWISE,
                "depthwise_bias": np.ones(3),
            },
            r"depthwise_bias must have the shape \(6,\)",
        ),
        ({"depthwise_kernel": DEPTHWISE, "bias": np.ones(3)}, r"bias must have the shape \(6,\)"),
        ({"depthwise_kernel": np.ones((5, 5, 3, 1))}, "does not fit|empty|smaller"),
        ({"depthwise_kernel": DEPTHWISE, "strides": 0}, "strides must be positive"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        sepconv.fused_conv2d(X, **options)


def test_dtypes_must_be_one():
    with pytest.raises(TypeError, match="bias must have the dtype"):
        sepconv.fused_conv2d(X, DEPTHWISE, bias=np.ones(6, "float32"))
