"""NumPy: arrays that do not fit raise before any kernel runs, naming what was wrong."""

from __future__ import annotations

import numpy as np
import pytest

import sepconv
from sepconv import (
    _native,
    depthwise_conv2d,
    depthwise_conv2d_grad,
    separable_conv2d,
    separable_conv2d_grad,
)

X, K = np.ones((1, 4, 4, 2), "float32"), np.ones((3, 3, 2, 1), "float32")
P, B = np.ones((1, 1, 2, 5), "float32"), np.ones(5, "float32")
Y = np.ones((1, 2, 2, 5), "float32")
READ_ONLY = np.ones((1, 2, 2, 5), "float32")
READ_ONLY.flags.writeable = False
SHARED = np.ones(200, "float32")

CASES = [
    (lambda: depthwise_conv2d(X.astype(int), K), TypeError, "x must be float32, float.*int64"),
    (lambda: depthwise_conv2d(X.astype(bool), K), TypeError, r"x\.astype\('float32'\)"),
    (lambda: depthwise_conv2d(X, K.astype("float64")), TypeError, "depthwise_kernel must have the"),
    (lambda: separable_conv2d(X, K, P.astype("float64")), TypeError, "pointwise_kernel must have"),
    (lambda: separable_conv2d(X, K, P, B.astype("float64")), TypeError, "bias must have the dtype"),
    (lambda: separable_conv2d(X, K, None), TypeError, "pointwise_kernel must be an array"),
    (lambda: separable_conv2d_grad(X, K, None, Y), TypeError, "pointwise_kernel must be an array"),
    (lambda: depthwise_conv2d("image", K), TypeError, "x must be float32, float64, float16 or bf"),
    (lambda: depthwise_conv2d(None, K), TypeError, "x must be float32, float64, float16 or bf"),
    (lambda: depthwise_conv2d(X[0], K), ValueError, "x must have 4 axes"),
    (lambda: depthwise_conv2d(X, K[0]), ValueError, "depthwise_kernel must have 4 axes"),
    (lambda: depthwise_conv2d(X, K[:, :, :1]), ValueError, "third axis must equal"),
    (lambda: depthwise_conv2d(X, K, B), ValueError, r"bias must have the shape \(2,\)"),
    (lambda: separable_conv2d(X, K, P, B[:2]), ValueError, r"bias must have the shape \(5,\)"),
    (lambda: separable_conv2d(X, K, P[:, :, :1]), ValueError, "pointwise_kernel must have the sh"),
    (lambda: depthwise_conv2d(X, K, activation="tanh"), ValueError, "activation must be one of"),
    (lambda: depthwise_conv2d(X[:, :2], K), ValueError, "The output would be empty"),
    (lambda: separable_conv2d_grad(X, K, P, Y[..., :4]), ValueError, "dy must have the shape of"),
    (lambda: separable_conv2d_grad(X, K, P, Y.astype(float)), TypeError, "dy must have the dtype"),
    (lambda: depthwise_conv2d_grad(X, K, Y), ValueError, "dy must have the shape of the output"),
    (lambda: separable_conv2d(X, K, P, out=Y[..., :4]), ValueError, "out must have the shape"),
    (lambda: separable_conv2d(X, K, P, out=Y.astype(float)), ValueError, "out must have the shape"),
    (lambda: separable_conv2d(X, K, P, out=Y.tolist()), TypeError, "out must be a NumPy array"),
    (lambda: separable_conv2d(X, K, P, out=READ_ONLY), ValueError, "out must be C-contiguous"),
    (
        lambda: separable_conv2d(X, K, P, out=np.ones((1, 2, 2, 10), "float32")[..., ::2]),
        ValueError,
        "out must be C-contiguous",
    ),
    (
        lambda: separable_conv2d(
            SHARED[:32].reshape(X.shape), K, P, out=SHARED[20:40].reshape(Y.shape)
        ),
        ValueError,
        "out must not share memory",
    ),
    (lambda: sepconv.depthwise_conv1d(X, K[0]), ValueError, "x must have 3 axes"),
    (lambda: sepconv.depthwise_conv1d(X[0], K), ValueError, "depthwise_kernel must have 3 axes"),
    (lambda: sepconv.separable_conv1d(X[0], K[0], P), ValueError, "pointwise_kernel must have 3"),
    (lambda: sepconv.separable_conv1d(X[0], K[0], None), TypeError, "pointwise_kernel must be an"),
    (lambda: sepconv.depthwise_conv1d(X[0], K[0], out=[0.0]), TypeError, "out must be a NumPy arr"),
    (lambda: sepconv.engines.load("theano"), ValueError, "Keras backends.*'theano'"),
    (lambda: sepconv.nothing, AttributeError, "no attribute 'nothing'"),
]


@pytest.mark.parametrize(("call", "error", "message"), CASES, ids=[m for *_, m in CASES])
def test_message(call, error, message):
    import sepconv.engines  # noqa: F401

    with pytest.raises(error, match=message):
        call()


def test_out_is_untouched_by_a_failing_call():
    out = np.full((1, 2, 2, 5), 7, "float32")
    with pytest.raises(ValueError, match="bias"):
        separable_conv2d(X, K, P, B[:1], out=out)
    assert np.all(out == 7)


def test_strides_beyond_the_input_cost_nothing():
    x, kernel = np.ones((1, 5, 6, 3)), np.ones((3, 2, 3, 1))
    for data_format in ("channels_last", "channels_first"):
        image = np.moveaxis(x, 3, 1).copy() if data_format == "channels_first" else x
        options = {"strides": 10**12, "padding": "same", "data_format": data_format}
        y = sepconv.depthwise_conv2d(image, kernel, **options)
        assert y.size == 3
        grads = sepconv.depthwise_conv2d_grad(image, kernel, np.ones_like(y), **options)
        assert grads.x.sum() == y.sum()


def test_dilations_beyond_memory_are_refused():
    x, kernel = np.ones((1, 5, 6, 3)), np.ones((3, 3, 3, 1))
    with pytest.raises(ValueError, match="more elements than memory can address"):
        sepconv.depthwise_conv2d(x, kernel, padding="same", dilation_rate=10**11)
    y = sepconv.depthwise_conv2d(x, kernel, padding="same", dilation_rate=1000)
    assert y.sum() == 90  # of each pixel's taps the middle one falls on the image


@pytest.mark.parametrize("number", [-1, 5, 2**20])
@pytest.mark.parametrize("last", [False, True])
def test_a_number_that_is_no_activation_is_refused(number, last):
    geometry = _native.Geometry((1,) * 4 + (0,) * 6, X.shape, K.shape)
    y = np.empty((1, 2, 2, 2), "float32")
    activations = (0, number) if last else (number, 0)
    with pytest.raises(ValueError, match=f"There is no activation of the number {number}"):
        _native.forward(geometry, 0, X, K, None, None, None, None, y, 0, *activations)


def test_filters_and_a_pointwise_kernel_come_together():
    geometry = _native.Geometry((1,) * 4 + (0,) * 6, X.shape, K.shape)
    for pointwise_kernel, filters in ((None, 5), (P, 0), (P, -5)):
        with pytest.raises(ValueError, match="filters must be 0"):
            _native.forward(geometry, 0, X, K, None, pointwise_kernel, None, None, Y, filters, 0, 0)
