"""TensorFlow: values and gradients against the float64 reference and TensorFlow itself."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.configurations import TOLERANCE

tf = pytest.importorskip("tensorflow")

from sepconv import reference  # noqa: E402
from sepconv import tensorflow as sep  # noqa: E402
from sepconv.engines.tensorflow.composed import stock  # noqa: E402
from sepconv.geometry import conv_spec  # noqa: E402

SEEDS = range(240)


def random_case(seed):
    """Arrays (x, depthwise, pointwise or None, bias or None), options, activation."""
    rng = np.random.default_rng(seed)
    kernel = rng.integers(1, 6, 2)
    dilation = rng.integers(1, 4, 2)
    reach = (kernel - 1) * dilation + 1
    padding = ["valid", "same", "explicit"][seed % 3]
    size = rng.integers(1, 12, 2)
    if padding == "valid":
        size = np.maximum(size, reach)
    elif padding == "explicit":
        before = rng.integers(0, 4, 2)
        after = np.maximum(rng.integers(0, 4, 2), reach - size - before)
        padding = tuple(zip(before.tolist(), after.tolist(), strict=True))
    channels, multiplier = int(rng.integers(1, 10)), int(rng.integers(1, 4))
    options = {
        "strides": tuple(rng.integers(1, 4, 2).tolist()),
        "padding": padding,
        "dilation_rate": tuple(dilation.tolist()) if rng.random() < 0.6 else 1,
        "data_format": ["channels_last", "channels_first"][int(rng.integers(2))],
    }
    if options["dilation_rate"] == 1 and rng.random() < 0.5:
        options["strides"] = (options["strides"][0],) * 2  # what TensorFlow itself can do
    batch = int(rng.integers(1, 4))
    if options["data_format"] == "channels_first":
        x_shape = (batch, channels, *size)
    else:
        x_shape = (batch, *size, channels)
    outputs = channels * multiplier
    filters = int(rng.integers(1, 9)) if rng.random() < 0.6 else None
    dtype = ["float32", "float64"][int(rng.integers(2))]

    def array(*shape):
        return rng.standard_normal(shape).astype(dtype)

    arrays = [array(*x_shape), array(*kernel, channels, multiplier), None, None]
    if filters is not None:
        arrays[2] = array(1, 1, outputs, filters)
    if rng.random() < 0.7:
        arrays[3] = array(filters or outputs)
    return arrays, options, [None, "relu", "relu6"][int(rng.integers(3))]


def close(actual, expected, dtype):
    """Within the tolerance in norm.

    The entries are sums of products of standard normal numbers; a norm that came out smaller than
    theirs did so by cancellation, and is no measure.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    scale = max(np.linalg.norm(expected), np.sqrt(expected.size))
    assert np.linalg.norm(actual - expected) <= TOLERANCE[dtype] * scale


def call(functions, arrays, **options):
    x, kernel, pointwise, bias = arrays
    if pointwise is None:
        return functions.depthwise_conv2d(x, kernel, bias, **options)
    return functions.separable_conv2d(x, kernel, pointwise, bias, **options)


def call_stock(arrays, activation=None, **options):
    return stock(*arrays, conv_spec(**options), activation)


def differentiate(function, arrays):
    """The result, a seeded dy, and the gradient of every array that is there."""
    tensors = [None if a is None else tf.constant(a) for a in arrays]
    watched = [t for t in tensors if t is not None]
    with tf.GradientTape() as tape:
        tape.watch(watched)
        y = function(tensors)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(arrays[0].dtype)
    return y.numpy(), dy, [g.numpy() for g in tape.gradient(y, watched, output_gradients=dy)]


def expected_gradients(arrays, y, dy, activation, options):
    if activation is not None:
        dy = dy * (y > 0) * (y < 6 if activation == "relu6" else 1)
    x, kernel, pointwise, bias = arrays
    if pointwise is None:
        grads = reference.depthwise_conv2d_grad(x, kernel, dy, **options)
    else:
        grads = reference.separable_conv2d_grad(x, kernel, pointwise, dy, **options)
    return grads if bias is not None else grads[:-1]


@pytest.mark.parametrize("seed", SEEDS)
def test_forward_and_every_gradient_equal_the_reference(seed):
    arrays, options, activation = random_case(seed)
    dtype = str(arrays[0].dtype)
    y, dy, grads = differentiate(
        lambda tensors: call(sep, tensors, activation=activation, **options), arrays
    )
    assert y.dtype == dtype
    close(y, call(reference, arrays, activation=activation, **options), dtype)
    for grad, expected in zip(
        grads, expected_gradients(arrays, y, dy, activation, options), strict=True
    ):
        close(grad, expected, dtype)


@pytest.mark.parametrize("seed", range(1000, 1060))
def test_stock_for_other_devices_equals_the_reference(seed):
    arrays, options, activation = random_case(seed)
    dtype = str(arrays[0].dtype)
    y, dy, grads = differentiate(
        lambda tensors: call_stock(tensors, activation=activation, **options), arrays
    )
    close(y, call(reference, arrays, activation=activation, **options), dtype)
    for grad, expected in zip(
        grads, expected_gradients(arrays, y, dy, activation, options), strict=True
    ):
        close(grad, expected, dtype)


def tensorflows_own(tensors, strides, padding, dilation_rate, data_format):
    """By tf.nn alone, which takes channels_last on the CPU."""
    x, kernel, pointwise, bias = tensors
    first = data_format == "channels_first"
    x = tf.transpose(x, [0, 2, 3, 1]) if first else x
    y = tf.nn.depthwise_conv2d(x, kernel, [1, *strides, 1], padding.upper(), None, dilation_rate)
    y = y if pointwise is None else tf.nn.conv2d(y, pointwise, 1, "VALID")
    y = y if bias is None else y + bias
    return tf.transpose(y, [0, 3, 1, 2]) if first else y


@pytest.mark.parametrize("seed", range(2000, 2200))
def test_equal_to_tensorflows_own_where_it_can(seed):
    arrays, options, _ = random_case(seed)
    dtype = str(arrays[0].dtype)
    if not isinstance(options["padding"], str):
        options["padding"] = "same"
    options["strides"] = (options["strides"][0],) * 2
    if options["strides"] != (1, 1) or options["dilation_rate"] == 1:
        options["dilation_rate"] = (1, 1)
    y, _, grads = differentiate(lambda tensors: call(sep, tensors, **options), arrays)
    own_y, _, own_grads = differentiate(lambda t: tensorflows_own(t, **options), arrays)
    close(y, own_y, dtype)
    for grad, own in zip(grads, own_grads, strict=True):
        close(grad, own, dtype)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding", ["valid", "same", "causal", (2, 0)])
def test_one_dimension(data_format, padding):
    rng = np.random.default_rng(7)
    shape = (2, 11, 3) if data_format == "channels_last" else (2, 3, 11)
    x, kernel, pointwise, bias = (
        rng.standard_normal(s) for s in [shape, (3, 3, 2), (1, 6, 4), (4,)]
    )
    options = {
        "strides": 2,
        "dilation_rate": 2,
        "padding": padding,
        "data_format": data_format,
    }
    y = sep.separable_conv1d(x, kernel, pointwise, bias, **options)
    pads = {"valid": "valid", "same": "same", "causal": ((0, 0), (4, 0))}.get(
        padding, ((0, 0), (2, 0))
    )
    axis = 1 if data_format == "channels_last" else 2
    expected = reference.separable_conv2d(
        np.expand_dims(x, axis),
        kernel[None],
        pointwise[None],
        bias,
        strides=(1, 2),
        dilation_rate=(1, 2),
        padding=pads,
        data_format=data_format,
    )
    close(y, expected.squeeze(axis), "float64")


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 1e-2), ("float16", 2e-3)])
def test_half_types_are_computed_in_float32(dtype, tolerance):
    rng = np.random.default_rng(3)
    x, kernel, pointwise = (
        tf.cast(rng.standard_normal(s), dtype) for s in [(2, 9, 9, 8), (5, 5, 8, 1), (1, 1, 8, 16)]
    )
    with tf.GradientTape() as tape:
        tape.watch((x, kernel, pointwise))
        y = sep.separable_conv2d(x, kernel, pointwise, padding="same")
    grads = tape.gradient(y, (x, kernel, pointwise))
    assert y.dtype == dtype
    assert [g.dtype for g in grads] == [dtype] * 3
    expected = reference.separable_conv2d(
        *(tf.cast(a, "float64").numpy() for a in (x, kernel, pointwise)), padding="same"
    )
    error = np.linalg.norm(tf.cast(y, "float64") - expected) / np.linalg.norm(expected)
    assert error < tolerance


@pytest.mark.parametrize("function", [call_stock, lambda a, **o: call(sep, a, **o)])
def test_a_batch_of_none_gives_an_empty_result_and_zero_gradients(function):
    arrays = [np.ones(s, "float32") for s in [(0, 5, 5, 2), (3, 3, 2, 2), (1, 1, 4, 3), (3,)]]
    y, _, grads = differentiate(lambda t: function(t, strides=(1, 2), padding="same"), arrays)
    assert y.shape == (0, 5, 3, 3)
    assert [g.shape for g in grads] == [a.shape for a in arrays]
    assert not any(g.any() for g in grads)


def test_variables_and_arrays_are_taken_as_they_are():
    x = tf.Variable(np.arange(16, dtype="float32").reshape(1, 4, 4, 1))
    y = sep.depthwise_conv2d(x, np.ones((2, 2, 1, 1), "float32"))
    close(y, reference.depthwise_conv2d(x.numpy(), np.ones((2, 2, 1, 1))), "float32")


def test_a_slice_that_starts_within_a_buffer():
    x = np.random.default_rng(0).standard_normal((5, 3, 3, 1)).astype("float32")
    kernel = np.ones((2, 2, 1, 1), "float32")
    for start in range(5):  # 36 bytes an image: most starts are not aligned to a vector
        y = sep.depthwise_conv2d(tf.constant(x)[start:], kernel)
        close(y, reference.depthwise_conv2d(x[start:], kernel), "float32")
