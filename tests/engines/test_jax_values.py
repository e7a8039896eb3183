"""Values and gradients of sepconv.jax against JAX's own convolution, on random configurations."""

import jax
import numpy as np
import pytest
from helpers.configurations import TOLERANCE
from jax import lax

import sepconv
import sepconv.jax

CONFIGURATIONS = 200


pytestmark = pytest.mark.usefixtures("quick_jax", "x64")


def random_case(seed):
    """(arrays, options, dtype): one configuration, with a shape, kernel and stride of each kind."""
    rng = np.random.default_rng(seed)

    def pick(*values):
        return values[rng.integers(len(values))]

    dtype = pick("float32", "float64")
    kernel = pick((1, 1), (3, 3), (2, 3), (5, 1), (1, 4), (4, 4), (7, 7))
    dilation = pick((1, 1), (1, 1), (2, 2), (1, 3), (2, 1))
    padding = pick("valid", "same", "explicit")
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if padding == "explicit":
        padding = tuple(tuple(int(p) for p in rng.integers(0, 4, 2)) for _ in range(2))
    # Inputs smaller than the kernel where padding allows it.
    least = [1, 1] if padding == "same" else reach
    size = [int(low + rng.integers(0, 7)) for low in least]
    channels, multiplier = int(rng.integers(1, 10)), pick(1, 1, 2, 3)
    filters = int(rng.integers(1, 12))
    batch = pick(1, 2, 3)
    first = pick(False, True)
    options = {
        "strides": pick(1, 1, 2, (1, 2), (3, 2)),
        "padding": padding,
        "dilation_rate": dilation,
        "data_format": "channels_first" if first else "channels_last",
        "activation": pick(None, None, "relu", "relu6"),
    }
    shape = (batch, channels, *size) if first else (batch, *size, channels)
    arrays = [rng.standard_normal(shape), rng.standard_normal((*kernel, channels, multiplier))]
    outputs = channels * multiplier
    if pick(False, True, True):
        arrays.append(rng.standard_normal((1, 1, outputs, filters)))
        outputs = filters
    else:
        arrays.append(None)
    arrays.append(rng.standard_normal(outputs) if pick(False, True) else None)
    return [a if a is None else a.astype(dtype) for a in arrays], options, dtype


def ours(x, kernel, pointwise, bias, **options):
    if pointwise is None:
        return sepconv.jax.depthwise_conv2d(x, kernel, bias, **options)
    return sepconv.jax.separable_conv2d(x, kernel, pointwise, bias, **options)


def stock(x, kernel, pointwise, bias, strides, padding, dilation_rate, data_format, activation):
    """What Keras computes on JAX: a grouped convolution, a 1x1 one, the bias, the activation."""
    layout = "NCHW" if data_format == "channels_first" else "NHWC"
    kh, kw, channels, multiplier = kernel.shape
    y = lax.conv_general_dilated(
        x,
        kernel.reshape(kh, kw, 1, channels * multiplier),
        (strides, strides) if isinstance(strides, int) else strides,
        padding.upper() if isinstance(padding, str) else padding,
        rhs_dilation=dilation_rate,
        dimension_numbers=(layout, "HWIO", layout),
        feature_group_count=channels,
    )
    if pointwise is not None:
        y = lax.conv_general_dilated(
            y, pointwise, (1, 1), "VALID", dimension_numbers=(layout, "HWIO", layout)
        )
    if bias is not None:
        y = y + (bias[:, None, None] if layout == "NCHW" else bias)
    return {None: lambda y: y, "relu": jax.nn.relu, "relu6": jax.nn.relu6}[activation](y)


def error(found, expected):
    """Relative, in norm."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    norm = np.linalg.norm(expected)
    return np.linalg.norm(found - expected) / (norm if norm > 0 else 1)


def value_and_gradients(function, arrays, options):
    """(y, the gradient of sum(y * dy) for each array that is not None), of a random dy."""
    given = [i for i, a in enumerate(arrays) if a is not None]

    def of(*values):
        operands = [None] * len(arrays)
        for i, value in zip(given, values, strict=True):
            operands[i] = value
        return function(*operands, **options)

    @jax.jit
    def run(values, dy):
        y, backward = jax.vjp(of, *values)
        return y, backward(dy[: y.size].reshape(y.shape).astype(y.dtype))

    dy = np.random.default_rng(0).standard_normal(20_000)
    return run([arrays[i] for i in given], dy)


@pytest.mark.parametrize("part", range(8))
def test_forward_and_every_gradient_equal_stock(part):
    for seed in range(part, CONFIGURATIONS, 8):
        arrays, options, dtype = random_case(seed)
        y, gradients = value_and_gradients(ours, arrays, options)
        expected, expected_gradients = value_and_gradients(stock, arrays, options)
        assert y.dtype == dtype
        assert error(y, expected) <= TOLERANCE[dtype], (seed, options)
        for gradient, other in zip(gradients, expected_gradients, strict=True):
            assert gradient.dtype == dtype
            assert error(gradient, other) <= TOLERANCE[dtype], (seed, gradient.shape, options)


def test_one_dimension_is_a_case_of_two():
    x, kernel, pointwise, bias = (
        np.random.default_rng(0).standard_normal(shape)
        for shape in ((2, 9, 3), (4, 3, 2), (1, 6, 5), (5,))
    )
    options = {"strides": 2, "dilation_rate": 2, "padding": "causal"}
    y = sepconv.jax.separable_conv1d(x, kernel, pointwise, bias, **options)
    expected = sepconv.separable_conv1d(x, kernel, pointwise, bias, **options)
    assert error(y, expected) <= 1e-12
    y = sepconv.jax.depthwise_conv1d(x.swapaxes(1, 2), kernel, data_format="channels_first")
    expected = sepconv.depthwise_conv1d(x, kernel).swapaxes(1, 2)
    assert error(y, expected) <= 1e-12


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_types_are_computed_in_float32_and_rounded_after_each_step(dtype):
    arrays = [
        np.random.default_rng(1).standard_normal(shape).astype(jax.numpy.dtype(dtype))
        for shape in ((2, 6, 6, 8), (3, 3, 8, 1), (1, 1, 8, 16))
    ]
    single = [a.astype(np.float32) for a in arrays]

    def loss(x, kernel, pointwise):
        return (sepconv.jax.separable_conv2d(x, kernel, pointwise) ** 2).sum()

    y = sepconv.jax.separable_conv2d(*arrays)
    assert y.dtype == dtype
    x, kernel, pointwise = arrays
    middle = sepconv.jax.depthwise_conv2d(x, kernel)
    expected = sepconv.jax.fused_conv2d(middle, None, pointwise)
    np.testing.assert_array_equal(np.asarray(y), np.asarray(expected))
    assert error(y, sepconv.jax.separable_conv2d(*single)) <= 2e-2
    gradients = jax.grad(loss, (0, 1, 2))(*arrays)
    for gradient, expected in zip(gradients, jax.grad(loss, (0, 1, 2))(*single), strict=True):
        assert gradient.dtype == dtype
        assert error(gradient, expected) <= 2e-2


def test_an_empty_batch():
    x, kernel = np.zeros((0, 5, 5, 2)), np.ones((3, 3, 2, 1))
    loss = jax.jit(lambda x, kernel: sepconv.jax.depthwise_conv2d(x, kernel).sum())
    assert sepconv.jax.depthwise_conv2d(x, kernel).shape == (0, 3, 3, 2)
    dx, dkernel = jax.grad(loss, (0, 1))(x, kernel)
    assert dx.shape == x.shape
    np.testing.assert_array_equal(np.asarray(dkernel), np.zeros(kernel.shape))
