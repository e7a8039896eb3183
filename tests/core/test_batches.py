"""Gradients at special sizes: large batches, which go through in parts, and powers of two."""

import numpy as np
import pytest
from helpers.configurations import TOLERANCE

import sepconv
from sepconv import reference

SHAPES = {"channels_last": (12, 60, 50, 24), "channels_first": (12, 24, 60, 50)}


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("filters", [None, 20])
@pytest.mark.parametrize("data_format", SHAPES)
def test_gradients_of_a_large_batch_are_those_of_its_images(data_format, filters, multiplier):
    random = np.random.default_rng(0)
    x = random.standard_normal(SHAPES[data_format])
    kernels = [random.standard_normal((3, 3, 24, multiplier))]
    function, gradient = sepconv.depthwise_conv2d, sepconv.depthwise_conv2d_grad
    if filters is not None:
        kernels.append(random.standard_normal((1, 1, 24 * multiplier, filters)))
        function, gradient = sepconv.separable_conv2d, sepconv.separable_conv2d_grad
    options = {"padding": "same", "data_format": data_format}
    dy = random.standard_normal(function(x, *kernels, **options).shape)
    whole = gradient(x, *kernels, dy, **options)
    images = [gradient(x[i : i + 1], *kernels, dy[i : i + 1], **options) for i in range(len(x))]
    np.testing.assert_allclose(whole.x, np.concatenate([g.x for g in images]), rtol=0, atol=1e-11)
    for name in whole._fields[1:]:
        total = sum(getattr(g, name) for g in images)
        error = np.linalg.norm(getattr(whole, name) - total)
        assert error <= 1e-12 * np.linalg.norm(total)


def test_bits_are_the_same_at_any_number_of_threads():
    random = np.random.default_rng(1)
    x, kernel, pointwise, dy = (
        random.standard_normal(shape).astype("float32")
        for shape in [(20, 64, 64, 24), (3, 3, 24, 1), (1, 1, 24, 16), (20, 64, 64, 16)]
    )
    before, found = sepconv.num_threads(), []
    try:
        for count in (1, 2, 3):
            sepconv.set_num_threads(count)
            grads = sepconv.separable_conv2d_grad(x, kernel, pointwise, dy, padding="same")
            found.append([grad.tobytes() for grad in grads])
    finally:
        sepconv.set_num_threads(before)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("channels", "multiplier"), [(256, 1), (128, 2), (16, 16), (64, 8)])
def test_gradients_of_pixels_that_are_a_power_of_two_apart(channels, multiplier, dtype):
    random = np.random.default_rng(2)
    outputs = channels * multiplier
    shapes = [(1, 30, 30, channels), (4, 4, channels, multiplier), (1, 1, outputs, 16)]
    x, kernel, pointwise = (random.standard_normal(shape).astype(dtype) for shape in shapes)
    options = {"padding": "same", "strides": (2, 3), "dilation_rate": 2}
    dy = random.standard_normal((1, 15, 10, 16)).astype(dtype)
    expected = reference.separable_conv2d_grad(x, kernel, pointwise, dy, **options)
    received = sepconv.separable_conv2d_grad(x, kernel, pointwise, dy, **options)
    for name, grad in received._asdict().items():
        error = np.linalg.norm(grad - getattr(expected, name))
        assert error <= TOLERANCE[dtype] * np.linalg.norm(getattr(expected, name)), name
