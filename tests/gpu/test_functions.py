"""An engine's functions on a GPU: their results are there, and are what the CPU's kernels give."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers import blocks
from helpers.devices import float64

import sepconv
from sepconv.engines import adapter, load
from sepconv.layers.devices import runs_on_cpu

ENGINE = keras.backend.backend()
LAST, FIRST = "channels_last", "channels_first"

CASES = [
    {"padding": "same"},
    {"strides": 2, "padding": "same", "multiplier": 2},
    {"strides": (2, 1), "padding": ((2, 0), (1, 3))},
    {"dilation_rate": 2},
    {"dilation_rate": (1, 2), "padding": "same", "data_format": FIRST},
    {"strides": (1, 3), "data_format": FIRST, "multiplier": 2},
]


def numbers(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def problem(case, separable):
    """The arrays and the options of a case."""
    options = dict(case)
    multiplier = options.pop("multiplier", 1)
    x = numbers(2, 5, 9, 8) if options.get("data_format") == FIRST else numbers(2, 9, 8, 5)
    arrays = [x, numbers(3, 2, 5, multiplier, seed=1)]
    if separable:
        arrays.append(numbers(1, 1, 5 * multiplier, 7, seed=2))
    return arrays, options


def check(device, received, expected, tolerance=1e-5):
    """Both are the same, and the received one is on the device."""
    assert device.holds(received)
    received, expected = device.numpy(received).astype("float64"), np.asarray(expected, "float64")
    assert received.shape == expected.shape
    assert np.linalg.norm(received - expected) <= tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("kind", ["depthwise", "separable"])
def test_convolutions_and_their_gradients(device, kind, case):
    arrays, options = problem(case, kind == "separable")
    name = f"{kind}_conv2d"
    y = getattr(sepconv, name)(*arrays, **options)
    dy = np.cos(y)
    grads = getattr(sepconv, f"{name}_grad")(*arrays, dy, **options)

    def function(*arrays):
        return getattr(load(ENGINE), name)(*arrays, **options)

    inputs = [device.put(array) for array in arrays]
    check(device, function(*inputs), y)
    received = device.gradients(function, inputs, device.put(dy))
    expected = [grads.x, grads.depthwise_kernel]
    expected += [grads.pointwise_kernel] if kind == "separable" else []
    for found, right in zip(received, expected, strict=True):
        check(device, found, right)


@pytest.mark.parametrize("kind", ["depthwise", "separable"])
@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_bias_and_activation(device, kind, activation):
    arrays, _ = problem({}, kind == "separable")
    options = {"padding": "same", "activation": activation}
    name = f"{kind}_conv2d"
    arrays.append(numbers(7 if kind == "separable" else 5, seed=3))
    y = getattr(sepconv, name)(*arrays, **options)
    assert 0 < (y == 0).mean() < 1
    check(device, getattr(load(ENGINE), name)(*map(device.put, arrays), **options), y)


@pytest.mark.parametrize("padding", ["same", "causal", (2, 1)])
@pytest.mark.parametrize("kind", ["depthwise", "separable"])
def test_one_dimension(device, kind, padding):
    arrays = [numbers(2, 9, 5), numbers(3, 5, 2, seed=1)]
    if kind == "separable":
        arrays.append(numbers(1, 10, 7, seed=2))
    name = f"{kind}_conv1d"
    y = getattr(sepconv, name)(*arrays, padding=padding)
    check(device, getattr(load(ENGINE), name)(*map(device.put, arrays), padding=padding), y)


@pytest.mark.parametrize("seed", range(12))
def test_fused_blocks(device, seed):
    arrays, options = blocks.random_block(seed, "float32")
    y = sepconv.fused_conv2d(**arrays, **options)
    inputs = {name: device.put(array) for name, array in arrays.items()}
    check(device, load(ENGINE).fused_conv2d(**inputs, **options), y)


def test_fused_gradients(device):
    arrays = {
        "x": numbers(2, 6, 5, 4, dtype="float64"),
        "depthwise_kernel": numbers(3, 3, 4, 1, seed=1, dtype="float64"),
        "pointwise_kernel": numbers(1, 1, 4, 3, seed=2, dtype="float64"),
        "bias": numbers(3, seed=3, dtype="float64"),
        "residual": numbers(2, 6, 5, 3, seed=4, dtype="float64"),
    }
    options = {"padding": "same", "depthwise_activation": "silu", "activation": "silu"}

    def ours(*values):
        return sepconv.fused_conv2d(**dict(zip(arrays, values, strict=True)), **options)

    def function(*values):
        return load(ENGINE).fused_conv2d(**dict(zip(arrays, values, strict=True)), **options)

    check_slopes(device, function, ours, list(arrays.values()))


def check_slopes(device, function, ours, arrays):
    """Gradients in float64, by what our function on the CPU does over a small distance."""
    dy = np.cos(ours(*arrays))
    with float64(ENGINE):
        inputs = [device.put(array) for array in arrays]
        check(device, function(*inputs), ours(*arrays), 1e-12)
        grads = device.gradients(function, inputs, device.put(dy))
        for place, (array, grad) in enumerate(zip(arrays, grads, strict=True)):
            assert device.holds(grad)
            step = 1e-6 * numbers(*array.shape, seed=9 + place, dtype="float64")
            both = [
                (ours(*arrays[:place], array + way * step, *arrays[place + 1 :]) * dy).sum()
                for way in (1, -1)
            ]
            slope = (device.numpy(grad) * step).sum()
            np.testing.assert_allclose(slope, (both[0] - both[1]) / 2, rtol=1e-5, atol=1e-11)


@pytest.mark.parametrize("data_format", [LAST, FIRST])
def test_pointwise(device, data_format):
    pointwise = adapter(ENGINE).pointwise
    if pointwise is None:
        pytest.skip(f"{ENGINE}'s own 1x1 convolution is as fast as ours")
    x = numbers(2, 16, 5, 6) if data_format == FIRST else numbers(2, 5, 6, 16)
    kernel = numbers(1, 1, 16, 24, seed=1)
    y = sepconv.pointwise_conv2d(x, kernel, data_format=data_format)
    grads = sepconv.pointwise_conv2d_grad(x, kernel, np.cos(y), data_format=data_format)

    def function(x, kernel):
        return pointwise(x, kernel, data_format=data_format)

    inputs = [device.put(x), device.put(kernel)]
    check(device, function(*inputs), y)
    received = device.gradients(function, inputs, device.put(np.cos(y)))
    for found, right in zip(received, grads[:2], strict=True):
        check(device, found, right)


@pytest.mark.parametrize("axis", [1, 3])
def test_batch_normalization(device, axis):
    batch_norm = adapter(ENGINE).batch_norm
    others = tuple(i for i in range(4) if i != axis)
    shape = [1] * 4
    shape[axis] = 5

    def ours(x, gamma, beta):
        mean, variance = x.mean(others, keepdims=True), x.var(others, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-3) * gamma.reshape(shape) + beta.reshape(shape)

    def function(x, gamma, beta):
        return batch_norm(x, gamma, beta, axis=axis, epsilon=1e-3)[0]

    x = numbers(*((3, 5, 4, 6) if axis == 1 else (3, 4, 6, 5)), dtype="float64")
    vectors = [numbers(5, seed=seed, dtype="float64") for seed in (1, 2)]
    check_slopes(device, function, ours, [x, *vectors])
    moments = batch_norm(*map(device.put, (x, *vectors)), axis=axis, epsilon=1e-3)[1:]
    for found, right in zip(moments, (x.mean(others), x.var(others)), strict=True):
        check(device, found, right)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_types(device, dtype):
    arrays, _ = problem({}, True)
    inputs = [keras.ops.cast(device.put(array), dtype) for array in arrays]
    y = load(ENGINE).separable_conv2d(*inputs, padding="same")
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    expected = sepconv.separable_conv2d(*arrays, padding="same")
    check(device, keras.ops.cast(y, "float32"), expected, 2e-2)


def test_arrays_on_the_cpu_stay_there(device):
    arrays, options = problem(CASES[0], True)
    inputs = [device.put(array, cpu=True) for array in arrays]
    y = load(ENGINE).separable_conv2d(*inputs, **options)
    assert runs_on_cpu(y)
    expected = sepconv.separable_conv2d(*arrays, **options)
    np.testing.assert_allclose(device.numpy(y), expected, rtol=1e-4, atol=1e-5)


def test_keras_is_told_where_arrays_are(device):
    assert runs_on_cpu(device.put(numbers(2), cpu=True))
    assert runs_on_cpu(device.put(numbers(2))) == (device.keras == "cpu")


@pytest.mark.skipif(ENGINE != "torch", reason="PyTorch's compiler")
def test_torch_compile(device):
    import torch

    arrays, options = problem(CASES[0], True)
    expected = sepconv.separable_conv2d_grad(*arrays, np.ones((2, 9, 8, 7), "float32"), **options)
    convolve = load("torch").separable_conv2d
    function = torch.compile(
        lambda *a: convolve(*a, **options), backend="aot_eager", fullgraph=True
    )
    inputs = [device.put(array) for array in arrays]
    check(device, function(*inputs), sepconv.separable_conv2d(*arrays, **options))
    dy = device.put(np.ones((2, 9, 8, 7), "float32"))
    for found, right in zip(device.gradients(function, inputs, dy), expected[:3], strict=True):
        check(device, found, right)


@pytest.mark.skipif(ENGINE != "torch", reason="PyTorch's autocast")
def test_torch_autocast(device):
    import torch

    arrays, options = problem(CASES[0], True)
    with torch.autocast(device.device.type, torch.bfloat16):
        y = load("torch").separable_conv2d(*map(device.put, arrays), **options)
    assert y.dtype == torch.bfloat16
    check(device, y.float(), sepconv.separable_conv2d(*arrays, **options), 2e-2)


@pytest.mark.skipif(ENGINE != "jax", reason="JAX's transformations")
def test_jax_vmap_and_second_order(device):
    import jax

    arrays, options = problem(CASES[0], False)
    x, kernel = map(device.put, arrays)

    def loss(kernel, x):
        y = load("jax").depthwise_conv2d(x[None], kernel, **options)
        return (y**2).sum() / 2

    # Of half the sum of squares of a linear map, the Hessian times the kernel is the gradient.
    products = jax.jit(
        jax.vmap(lambda x: jax.jvp(lambda k: jax.grad(loss)(k, x), (kernel,), (kernel,))[1])
    )(x)
    for image, found in zip(arrays[0], products, strict=True):
        y = sepconv.depthwise_conv2d(image[None], arrays[1], **options)
        grads = sepconv.depthwise_conv2d_grad(image[None], arrays[1], y, **options)
        check(device, found, grads.depthwise_kernel)
