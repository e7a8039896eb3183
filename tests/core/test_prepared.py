"""Convolutions of fixed weights against `fused_conv2d`: values, and what they refuse."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest
from helpers.blocks import random_block

import sepconv


def _prepared(arrays, options):
    weights = {name: a for name, a in arrays.items() if name not in ("x", "residual")}
    return sepconv.prepare_conv2d(**weights, **options)


@pytest.mark.parametrize("seed", range(120))
def test_values_are_those_of_fused_conv2d(seed):
    arrays, options = random_block(seed)
    expected = sepconv.fused_conv2d(**arrays, **options)
    convolve = _prepared(arrays, options)
    y = convolve(arrays["x"], arrays.get("residual"))
    np.testing.assert_array_equal(y, expected)
    assert y.dtype == expected.dtype == convolve.dtype


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types(dtype, data_format):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    rng = np.random.default_rng(0)
    x, kernel, pointwise = (
        rng.standard_normal(shape).astype(kind)
        for shape in ((2, 20, 20, 20), (3, 3, 20, 1), (1, 1, 20, 37))
    )
    options = {"padding": "same", "data_format": data_format}
    convolve = sepconv.prepare_conv2d(kernel, pointwise, **options)
    np.testing.assert_array_equal(
        convolve(x), sepconv.fused_conv2d(x, kernel, pointwise, **options)
    )


def test_an_ordinary_convolution_in_separable_form():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 12, 12, 5)).astype("float32")
    select = np.zeros((3, 3, 5, 9), "float32")
    for tap in range(9):
        select[tap // 3, tap % 3, :, tap] = 1
    weights = rng.standard_normal((1, 1, 45, 21)).astype("float32")
    y = sepconv.prepare_conv2d(select, weights, strides=2)(x)
    np.testing.assert_array_equal(y, sepconv.fused_conv2d(x, select, weights, strides=2))


def test_many_channels_and_one_convolution_for_many_sizes():
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((3, 3, 512, 1)).astype("float32")
    pointwise = rng.standard_normal((1, 1, 512, 300)).astype("float32")
    convolve = sepconv.prepare_conv2d(kernel, pointwise, padding="same")
    for size in (1, 4, 7, 14):
        x = rng.standard_normal((1, size, size, 512)).astype("float32")
        expected = sepconv.separable_conv2d(x, kernel, pointwise, padding="same")
        np.testing.assert_array_equal(convolve(x), expected)
    for batch in range(200):  # more plans than are remembered
        assert convolve(np.ones((batch, 1, 1, 512), "float32")).shape == (batch, 1, 1, 300)


def test_weights_are_copied():
    kernel, pointwise, bias = np.ones((1, 1, 3, 1)), np.ones((1, 1, 3, 2)), np.ones(2)
    convolve = sepconv.prepare_conv2d(kernel, pointwise, bias=bias)
    for array in (kernel, pointwise, bias):
        array[...] = 100
    assert (convolve(np.ones((1, 2, 2, 3))) == 4).all()


def test_no_reference_to_the_weights_is_kept():
    kernel = np.ones((3, 3, 8, 1))
    before = sys.getrefcount(kernel)
    convolve = sepconv.prepare_conv2d(kernel)
    assert sys.getrefcount(kernel) == before
    assert convolve(np.ones((1, 3, 3, 8)))[0, 0, 0, 0] == 9


def test_out_is_filled_and_returned():
    x = np.ones((1, 2, 2, 3))
    convolve = sepconv.prepare_conv2d(pointwise_kernel=np.ones((1, 1, 3, 4)))
    out = np.zeros((1, 2, 2, 4))
    assert convolve(x, out=out) is out
    assert (out == 3).all()
    with pytest.raises(ValueError, match="share memory"):
        convolve(x, out, out=out)
    with pytest.raises(ValueError, match="must have the shape"):
        convolve(x, out=np.zeros((1, 2, 2, 5)))


def test_what_does_not_fit_is_refused():
    kernel, pointwise = np.ones((3, 3, 4, 2)), np.ones((1, 1, 8, 5))
    with pytest.raises(ValueError, match="At least one of"):
        sepconv.prepare_conv2d()
    with pytest.raises(ValueError, match="pointwise_kernel"):
        sepconv.prepare_conv2d(kernel, np.ones((1, 1, 4, 5)))
    with pytest.raises(ValueError, match="4 axes"):
        sepconv.prepare_conv2d(np.ones((3, 3, 4)))
    with pytest.raises(ValueError, match="bias"):
        sepconv.prepare_conv2d(kernel, pointwise, bias=np.ones(4))
    with pytest.raises(TypeError, match="dtype"):
        sepconv.prepare_conv2d(kernel, pointwise.astype("float32"))
    convolve = sepconv.prepare_conv2d(kernel, pointwise)
    with pytest.raises(TypeError, match="dtype"):
        convolve(np.ones((1, 5, 5, 4), "float32"))
    with pytest.raises(ValueError, match="channels"):
        convolve(np.ones((1, 5, 5, 3)))
    with pytest.raises(ValueError):
        convolve(np.ones((5, 5, 4)))
    with pytest.raises(ValueError, match="empty"):
        convolve(np.ones((1, 2, 2, 4)))
    with pytest.raises(ValueError, match="residual"):
        convolve(np.ones((1, 5, 5, 4)), np.ones((1, 5, 5, 5)))
    with pytest.raises(ValueError, match="pointwise kernel"):
        sepconv.prepare_conv2d(kernel)(np.ones((1, 3, 3, 4)), np.ones((1, 1, 1, 8)))


def test_calls_from_many_threads():
    rng = np.random.default_rng(0)
    convolve = sepconv.prepare_conv2d(
        rng.standard_normal((3, 3, 24, 1)), rng.standard_normal((1, 1, 24, 40)), padding="same"
    )
    inputs = [rng.standard_normal((1, size, size, 24)) for size in range(1, 9)]
    expected = [convolve(x) for x in inputs]
    wrong = []

    def work(shift):
        for i in range(200):
            index = (i + shift) % len(inputs)
            if not np.array_equal(convolve(inputs[index]), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(shift,)) for shift in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
