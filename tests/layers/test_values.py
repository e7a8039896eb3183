"""The layers compute what Keras' own do, and the reference where those refuse; also gradients."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest
from helpers.keras_versions import convolves_channels_first

from sepconv import layers, reference

NAMES = ["SeparableConv2D", "DepthwiseConv2D", "SeparableConv1D", "DepthwiseConv1D"]
# Configurations a layer, of which a quarter in float64. JAX compiles each one, which is slow.
COUNT = 32 if keras.backend.backend() == "jax" else 56


def error(a, b):
    """The relative error in norm."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    return np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30)


def random_case(rng, name, engine, beyond=False):
    """Arguments of a layer and the shape of an input for it.

    Keras' own accepts them on `engine`, unless `beyond` asks for what it does not.
    """
    rank = int(name[-2])

    def some(low, high):
        return tuple(int(v) for v in rng.integers(low, high, rank))

    kernel, dilation = some(1, 5), some(1, 3)
    strides = some(1, 4)
    if engine == "tensorflow" and not beyond:
        strides = strides[:1] * rank
    size = tuple(
        (k - 1) * d + 1 + int(rng.integers(0, 7)) for k, d in zip(kernel, dilation, strict=True)
    )
    channels = int(rng.integers(1, 6))
    first = bool(rng.integers(2))
    arguments = {
        "kernel_size": kernel,
        "strides": strides,
        "dilation_rate": dilation,
        "depth_multiplier": int(rng.integers(1, 4)),
        "padding": ["valid", "same"][rng.integers(2)],
        "data_format": "channels_first" if first else "channels_last",
        "activation": [None, "linear", "relu", "relu6", "elu"][rng.integers(5)],
        "use_bias": bool(rng.integers(4)),
        "bias_initializer": "random_normal",
    }
    if beyond and rng.integers(3):
        pads = tuple((int(a), int(b)) for a, b in rng.integers(0, 5, (rank, 2)))
        arguments["padding"] = pads if rank == 2 else pads[0]
        if rank == 1 and rng.integers(2):
            arguments["padding"] = "causal"
    if name.startswith("Separable"):
        arguments["filters"] = int(rng.integers(1, 7))
    batch = int(rng.integers(1, 4))
    return arguments, (batch, channels, *size) if first else (batch, *size, channels)


def _adds_bias_along_width(arguments, shape, name):
    """Whether Keras' own adds the bias to the wrong axis on TensorFlow.

    Its `ops.add` guesses the layout from the sizes, and takes channels_first with as many channels
    as columns for channels_last.
    """
    first = arguments["data_format"] == "channels_first"
    output = getattr(layers, name)(**arguments).compute_output_shape(shape)
    return first and arguments["use_bias"] and output[1] == output[-1]


@pytest.mark.parametrize("name", NAMES)
def test_equals_keras_own(name, engine, gradients, float64):
    rng = np.random.default_rng(sum(map(ord, name)))
    for i in range(COUNT):
        dtype, tolerance = ("float64", 1e-12) if i % 4 == 3 else ("float32", 1e-5)
        arguments, shape = random_case(rng, name, engine)
        if engine == "tensorflow" and _adds_bias_along_width(arguments, shape, name):
            continue
        if arguments["data_format"] == "channels_first" and not convolves_channels_first():
            continue
        with float64() if dtype == "float64" else contextlib.nullcontext():
            ours = getattr(layers, name)(**arguments, dtype=dtype)
            try:
                stock = getattr(keras.layers, name)(**arguments, dtype=dtype)
            except ValueError:  # Keras before 3.14 refuses strides together with dilation
                assert max(ours.strides) > 1 < max(ours.dilation_rate)
                continue
            ours.build(shape)
            stock.build(shape)
            stock.set_weights(ours.get_weights())
            x = rng.standard_normal(shape).astype(dtype)
            dy = rng.standard_normal(stock.compute_output_shape(shape)).astype(dtype)
            results, expected = gradients([ours, stock], x, dy)
        assert len(results) == 2 + len(ours.weights)
        for result, value in zip(results, expected, strict=True):
            assert result.dtype == value.dtype == dtype
            assert error(result, value) < tolerance, arguments


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_reference_beyond_keras(name, engine, forward):
    rng = np.random.default_rng(sum(map(ord, name)) + 1)
    for _ in range(COUNT // 4):
        arguments, shape = random_case(rng, name, engine, beyond=True)
        layer = getattr(layers, name)(**arguments)
        layer.build(shape)
        x = rng.standard_normal(shape).astype("float32")
        y = forward(layer, x)
        assert y.shape == layer.compute_output_shape(shape)
        assert error(y, expected_output(layer, x)[0]) < 1e-5, arguments


@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_the_reference_beyond_keras(name, engine, gradients):
    rng = np.random.default_rng(sum(map(ord, name)) + 2)
    for _ in range(COUNT // 7):
        arguments, shape = random_case(rng, name, engine, beyond=True)
        arguments["activation"] = None
        layer = getattr(layers, name)(**arguments)
        layer.build(shape)
        x = rng.standard_normal(shape).astype("float32")
        dy = rng.standard_normal(layer.compute_output_shape(shape)).astype("float32")
        [[_, *grads]] = gradients([layer], x, dy)
        _, expected = expected_output(layer, x, dy)
        for grad, value in zip(grads, expected, strict=False):  # no bias, no gradient for it
            assert error(grad, value) < 1e-5, arguments


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_half_precision_is_as_good_as_its_storage(name, policy):
    rng = np.random.default_rng(5)
    arguments = {"kernel_size": 3, "padding": "same", "activation": "relu"}
    if name.startswith("Separable"):
        arguments["filters"] = 6
    layer = getattr(layers, name)(**arguments, dtype=policy)
    x = rng.standard_normal((2, *(9,) * layer._rank, 8)).astype("float32")
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    expected, _ = expected_output(layer, x)
    step = 2**-8 if "bfloat16" in policy else 2**-11
    assert error(keras.ops.convert_to_numpy(keras.ops.cast(y, "float32")), expected) < 2 * step


def test_empty_batch_gives_an_empty_result():
    y = layers.SeparableConv2D(4, 3)(np.zeros((0, 5, 5, 2), "float32"))
    assert tuple(y.shape) == (0, 3, 3, 4)


def expected_output(layer, x, dy=None):
    """What the reference makes of a layer: its output, and where `dy` is given, gradients."""
    rank, first = layer._rank, layer.data_format == "channels_first"
    axis = (2 if first else 1) if rank == 1 else None

    def image(array, axis):
        return array if rank == 2 else np.expand_dims(array, axis)

    def pair(sizes):
        return tuple(sizes) if rank == 2 else (1, *sizes)

    padding = layer.padding
    if padding == "causal":
        padding = ((layer.kernel_size[0] - 1) * layer.dilation_rate[0], 0)
    if rank == 1 and not isinstance(padding, str):
        padding = ((0, 0), padding)
    options = {
        "strides": pair(layer.strides),
        "padding": padding,
        "dilation_rate": pair(layer.dilation_rate),
        "data_format": layer.data_format,
    }
    weights = [np.asarray(w, np.float64) for w in layer.get_weights()]
    kernels = [image(w, 0) for w in (weights[:-1] if layer.use_bias else weights)]
    bias = weights[-1] if layer.use_bias else None
    kind = "separable" if len(kernels) == 2 else "depthwise"
    y = getattr(reference, f"{kind}_conv2d")(image(x, axis), *kernels, bias, **options)
    if layer.activation is not None:
        activated = keras.ops.convert_to_numpy(layer.activation(keras.ops.convert_to_tensor(y)))
        y = np.asarray(activated, np.float64)
    if rank == 1:
        y = np.squeeze(y, axis)
    if dy is None:
        return y, None
    grad = getattr(reference, f"{kind}_conv2d_grad")
    grads = grad(image(x, axis), *kernels, image(dy, axis), **options)
    if rank == 1:
        grads = (np.squeeze(grads[0], axis), *(g[0] for g in grads[1:-1]), grads[-1])
    return y, list(grads)
