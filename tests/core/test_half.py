"""float16 and bfloat16 arrays: every result is float32's, rounded once to the nearest."""

import numpy as np
import pytest
from helpers.configurations import configurations

import sepconv

bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
HALF = [np.dtype(np.float16), np.dtype(bfloat16)]


def forward(arrays, c):
    x, kernel, bias = arrays["x"], arrays["depthwise_kernel"], arrays.get("bias")
    options = {**c.options, "activation": c.activation}
    if c.filters is None:
        return sepconv.depthwise_conv2d(x, kernel, bias, **options)
    return sepconv.separable_conv2d(x, kernel, arrays["pointwise_kernel"], bias, **options)


def gradients(arrays, dy, c):
    x, kernel = arrays["x"], arrays["depthwise_kernel"]
    if c.filters is None:
        return sepconv.depthwise_conv2d_grad(x, kernel, dy, **c.options)
    return sepconv.separable_conv2d_grad(x, kernel, arrays["pointwise_kernel"], dy, **c.options)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_random_convolutions(dtype):
    for c in configurations(40, seed=5, dtypes=("float32",)):
        half = {name: a.astype(dtype) for name, a in c.arrays().items()}
        wide = {name: a.astype("float32") for name, a in half.items()}
        y, expected = forward(half, c), forward(wide, c)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, expected.astype(dtype), err_msg=str(c))
        dy = c.gradient(y.shape).astype(dtype)
        expected = gradients(wide, dy.astype("float32"), c)
        for name, grad in gradients(half, dy, c)._asdict().items():
            assert grad.dtype == dtype
            np.testing.assert_array_equal(grad, getattr(expected, name).astype(dtype), str(c))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_batch_that_goes_through_in_parts(dtype, data_format):
    """Gradients of kernels are then sums of sums, which float32 rounds otherwise: to 1e-5."""
    random = np.random.default_rng(0)
    size = (64, 17, 16, 40) if data_format == "channels_last" else (64, 40, 17, 16)
    x, k, p, b = (
        random.standard_normal(s).astype(dtype) for s in [size, (3, 3, 40, 1), (1, 1, 40, 24), 24]
    )
    wide = [a.astype("float32") for a in (x, k, p, b)]
    options = {"padding": "same", "data_format": data_format}
    y = sepconv.separable_conv2d(x, k, p, b, **options)
    expected = sepconv.separable_conv2d(*wide, **options)
    np.testing.assert_array_equal(y, expected.astype(dtype))
    dy = (random.standard_normal(y.shape) / 100).astype(dtype)
    grads = sepconv.separable_conv2d_grad(x, k, p, dy, **options)
    wanted = sepconv.separable_conv2d_grad(*wide[:3], dy.astype("float32"), **options)
    np.testing.assert_array_equal(grads.x, wanted.x.astype(dtype))
    half_unit = 2.0**-11 if dtype == np.float16 else 2.0**-8
    for grad, exact in zip(grads[1:], wanted[1:], strict=True):
        error = np.abs(grad.astype("float64") - exact)
        assert (error <= half_unit * np.abs(exact) + 1e-5 * np.abs(exact).max()).all()
    middle = sepconv.pointwise_conv2d(x, p, b, data_format=data_format)
    expected = sepconv.pointwise_conv2d(wide[0], wide[2], wide[3], data_format=data_format)
    if dtype == bfloat16 and sepconv.isa_name().endswith(("-bf16", "-emulated")):
        # Multiplied in pairs, so that sums have another order.
        error = np.abs(middle.astype("float64") - expected)
        assert (error <= half_unit * np.abs(expected) + 1e-5 * np.abs(expected).max()).all()
    else:
        np.testing.assert_array_equal(middle, expected.astype(dtype))


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_every_number_comes_back(dtype):
    x = np.arange(65536, dtype=np.uint16).view(dtype).reshape(1, 256, 256, 1)
    y = sepconv.depthwise_conv2d(x, np.ones((1, 1, 1, 1), dtype))
    np.testing.assert_array_equal(y.astype("float32"), x.astype("float32"))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("scale", [1e-8, 1e-5, 1e-2, 1.0, 100.0])
def test_products_are_rounded_as_numpy_rounds_them(dtype, scale):
    """To the nearest, ties to even; below the least normal number and beyond the largest too."""
    random = np.random.default_rng(1)
    x = (random.standard_normal((1, 64, 64, 3)) * scale).astype(dtype)
    kernel = (random.standard_normal((1, 1, 3, 1)) * 1000).astype(dtype)
    with np.errstate(over="ignore"):
        expected = (x.astype("float32") * kernel.astype("float32")[0, 0, :, 0]).astype(dtype)
    np.testing.assert_array_equal(sepconv.depthwise_conv2d(x, kernel), expected)


def test_bits_are_the_same_at_any_number_of_threads():
    random = np.random.default_rng(2)
    x, kernel = (
        random.standard_normal(s).astype(bfloat16) for s in [(9, 40, 40, 24), (5, 5, 24, 2)]
    )
    dy = random.standard_normal((9, 36, 36, 48)).astype(bfloat16)
    before, found = sepconv.num_threads(), []
    try:
        for count in (1, 2, 3):
            sepconv.set_num_threads(count)
            grads = sepconv.depthwise_conv2d_grad(x, kernel, dy)
            found.append([a.tobytes() for a in (sepconv.depthwise_conv2d(x, kernel), *grads)])
    finally:
        sepconv.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_out_and_arrays_that_must_be_copied():
    x = np.ones((2, 5, 5, 6), bfloat16)[..., ::2]
    swapped = np.ones((2, 5, 5, 3), ">f2")
    out = np.zeros((2, 3, 3, 3), bfloat16)
    assert sepconv.depthwise_conv2d(x, np.ones((3, 3, 3, 1), bfloat16), out=out) is out
    assert (out == 9).all()
    assert (sepconv.depthwise_conv2d(swapped, np.ones((3, 3, 3, 1), np.float16)) == 9).all()
    with pytest.raises(TypeError, match="depthwise_kernel must have the dtype of the first"):
        sepconv.depthwise_conv2d(x, np.ones((3, 3, 3, 1), np.float16))


def test_an_empty_batch():
    x, k = np.ones((0, 5, 5, 2), bfloat16), np.ones((3, 3, 2, 1), bfloat16)
    assert sepconv.depthwise_conv2d(x, k).shape == (0, 3, 3, 2)
    grads = sepconv.depthwise_conv2d_grad(x, k, np.ones((0, 3, 3, 2), bfloat16))
    assert not grads.depthwise_kernel.any()
    assert not grads.bias.any()
