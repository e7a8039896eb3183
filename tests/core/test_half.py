"""float16 and bfloat16 arrays: every step's result is float32's, rounded once to the nearest."""

import numpy as np
import pytest
from helpers.configurations import configurations

import sepconv

bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
HALF = [np.dtype(np.float16), np.dtype(bfloat16)]


def steps_of(arrays, c):
    """What is between the two steps of a separable convolution, and its result."""
    middle = sepconv.depthwise_conv2d(arrays["x"], arrays["depthwise_kernel"], **c.options)
    y = sepconv.pointwise_conv2d(
        middle,
        arrays["pointwise_kernel"],
        arrays.get("bias"),
        data_format=c.data_format,
        activation=c.activation,
    )
    return middle, y


def assert_rounded(half, wide):
    """`half` is what `wide` is when it is rounded, but for a float32 sum in another order."""
    half_unit = 2.0**-11 if half.dtype == np.float16 else 2.0**-8
    wide = np.asarray(wide, np.float64)
    error = np.abs(half.astype("float64") - wide)
    assert (error <= half_unit * np.abs(wide) + 1e-5 * np.abs(wide).max(initial=0)).all()


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_random_depthwise_convolutions(dtype):
    for c in configurations(40, seed=5, filters=(None,), dtypes=("float32",)):
        half = {name: a.astype(dtype) for name, a in c.arrays().items()}
        wide = {name: a.astype("float32") for name, a in half.items()}
        y, expected = (
            sepconv.depthwise_conv2d(
                a["x"],
                a["depthwise_kernel"],
                a.get("bias"),
                activation=c.activation,
                **c.options,
            )
            for a in (half, wide)
        )
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, expected.astype(dtype), err_msg=str(c))
        dy = c.gradient(y.shape).astype(dtype)
        grads, expected = (
            sepconv.depthwise_conv2d_grad(a["x"], a["depthwise_kernel"], g, **c.options)
            for a, g in ((half, dy), (wide, dy.astype("float32")))
        )
        for grad, value in zip(grads, expected, strict=True):
            assert grad.dtype == dtype
            np.testing.assert_array_equal(grad, value.astype(dtype), str(c))


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_separable_convolution_is_its_two_steps(dtype):
    """To the bit, on every level and under every schedule: what is between them is rounded."""
    for c in configurations(60, seed=6, dtypes=("float32",)):
        if c.filters is None:
            continue
        half = {name: a.astype(dtype) for name, a in c.arrays().items()}
        x, kernel, pointwise = (half[n] for n in ("x", "depthwise_kernel", "pointwise_kernel"))
        middle, expected = steps_of(half, c)
        y = sepconv.separable_conv2d(
            x, kernel, pointwise, half.get("bias"), activation=c.activation, **c.options
        )
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, expected, err_msg=str(c))
        dy = c.gradient(y.shape).astype(dtype)
        grads = sepconv.separable_conv2d_grad(x, kernel, pointwise, dy, **c.options)
        assert {grad.dtype for grad in grads} == {dtype}
        second = sepconv.pointwise_conv2d_grad(middle, pointwise, dy, data_format=c.data_format)
        first = sepconv.depthwise_conv2d_grad(x, kernel, second.x, **c.options)
        np.testing.assert_array_equal(grads.x, first.x, err_msg=str(c))
        np.testing.assert_array_equal(grads.bias, second.bias, err_msg=str(c))
        # Sums of sums of parts of a batch, which need not be the same parts.
        wide = second.x.astype("float32")
        dkernel = sepconv.depthwise_conv2d_grad(
            x.astype("float32"), kernel.astype("float32"), wide, **c.options
        )
        assert_rounded(grads.depthwise_kernel, dkernel.depthwise_kernel)
        dpointwise = sepconv.pointwise_conv2d_grad(
            middle.astype("float32"),
            pointwise.astype("float32"),
            dy.astype("float32"),
            data_format=c.data_format,
        )
        assert_rounded(grads.pointwise_kernel, dpointwise.pointwise_kernel)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_batch_that_goes_through_in_parts(dtype, data_format):
    """Gradients of kernels are then sums of sums, which float32 rounds otherwise: to 1e-5."""
    random = np.random.default_rng(0)
    size = (64, 17, 16, 40) if data_format == "channels_last" else (64, 40, 17, 16)
    x, k, p, b = (
        random.standard_normal(s).astype(dtype) for s in [size, (3, 3, 40, 1), (1, 1, 40, 24), 24]
    )
    options = {"padding": "same", "data_format": data_format}
    middle = sepconv.depthwise_conv2d(x, k, **options)
    y = sepconv.separable_conv2d(x, k, p, b, **options)
    product = sepconv.pointwise_conv2d(middle, p, b, data_format=data_format)
    np.testing.assert_array_equal(y, product)
    dy = (random.standard_normal(y.shape) / 100).astype(dtype)
    grads = sepconv.separable_conv2d_grad(x, k, p, dy, **options)
    of_product = sepconv.pointwise_conv2d_grad(middle, p, dy, data_format=data_format)
    of_depthwise = sepconv.depthwise_conv2d_grad(x, k, of_product.x, **options)
    np.testing.assert_array_equal(grads.x, of_depthwise.x)
    wide_x, wide_k, wide_p, wide_middle, wide_dmiddle, wide_dy = (
        a.astype("float32") for a in (x, k, p, middle, of_product.x, dy)
    )
    expected = sepconv.depthwise_conv2d_grad(wide_x, wide_k, wide_dmiddle, **options)
    assert_rounded(grads.depthwise_kernel, expected.depthwise_kernel)
    expected = sepconv.pointwise_conv2d_grad(wide_middle, wide_p, wide_dy, data_format=data_format)
    assert_rounded(grads.pointwise_kernel, expected.pointwise_kernel)
    assert_rounded(grads.bias, expected.bias)
    expected = sepconv.pointwise_conv2d(
        wide_middle, wide_p, b.astype("float32"), data_format=data_format
    )
    if dtype == bfloat16 and sepconv.isa_name().endswith(("-bf16", "-emulated")):
        assert_rounded(product, expected)  # multiplied in pairs: sums have another order
    else:
        np.testing.assert_array_equal(product, expected.astype(dtype))


@pytest.mark.parametrize("shape", [(1, 6, 7, 20), (2, 5, 5, 3)])
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_the_reference_rounds_between_the_steps(dtype, shape):
    """Whole numbers, whose sums are exact: results are the reference's to the last bit."""
    random = np.random.default_rng(3)

    def draw(most, *size):
        return random.integers(-most, most + 1, size).astype(dtype)

    x, kernel = draw(100, *shape), draw(60, 3, 3, shape[3], 1)
    x /= dtype.type(16)
    pointwise, options = draw(20, 1, 1, shape[3], 5), {"padding": "same"}
    y = sepconv.separable_conv2d(x, kernel, pointwise, **options)
    expected = sepconv.reference.separable_conv2d(x, kernel, pointwise, **options)
    np.testing.assert_array_equal(y, expected.astype(dtype))
    block = sepconv.fused_conv2d(x, kernel, pointwise, depthwise_activation="relu", **options)
    expected = sepconv.reference.fused_conv2d(
        x, kernel, pointwise, depthwise_activation="relu", **options
    )
    np.testing.assert_array_equal(block, expected.astype(dtype))
    dy = draw(40, *y.shape) / dtype.type(16)
    grads = sepconv.separable_conv2d_grad(x, kernel, pointwise, dy, **options)
    wanted = sepconv.reference.separable_conv2d_grad(x, kernel, pointwise, dy, **options)
    for grad, value in zip(grads, wanted, strict=True):
        np.testing.assert_array_equal(grad, value.astype(dtype))


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
