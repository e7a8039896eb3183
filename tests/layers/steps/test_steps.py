"""Steps in Keras' operations against the reference: float ones nearly, int8 ones to the bit."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers import programs
from helpers.float_networks import Drawn, data
from keras import ops

from sepconv.geometry import conv_spec
from sepconv.layers import TrainableInt8
from sepconv.layers.steps import floats
from sepconv.layers.steps.int8 import Simulation, looked_up, rounded_weights, straight
from sepconv.program import reference
from sepconv.program.network import BINARY, UNARY, Step
from sepconv.program.program import Program
from sepconv.quantization.forms import table_of
from sepconv.quantization.origin import Rounding
from sepconv.quantization.quantize import quantize_network
from sepconv.quantization.ranges import Scale
from sepconv.quantization.unrounded import floats_of, products_of, with_floats

numpy_of = keras.ops.convert_to_numpy


def test_every_function_of_one_array():
    x = np.concatenate([np.linspace(0.05, 4, 40), -np.linspace(0.05, 4, 40)]).astype("float32")
    for name in UNARY:
        given = x[:40] if name in ("log", "sqrt", "rsqrt") else x
        for numbers in ((0.5, 1.5, 0.0), (0.25, 3.0, 0.75)):
            attributes = dict(zip("abc", numbers, strict=True), function=name)
            step = Step("unary", name, [0], attributes)
            found = numpy_of(floats.compute(step, {}, [ops.convert_to_tensor(given)]))
            expected = reference.compute(step, {}, [given.astype("float64")])
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6, err_msg=name)


def test_every_function_of_two_arrays():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.2, 2, (3, 4)), rng.uniform(0.2, 2, (4,))
    for name in BINARY:
        step = Step("binary", name, [0, 1], {"function": name})
        given = [ops.convert_to_tensor(x.astype("float32")) for x in (a, b)]
        found = numpy_of(floats.compute(step, {}, given))
        np.testing.assert_allclose(found, reference.compute(step, {}, [a, b]), rtol=1e-5)


def test_every_operation_in_float():
    network = programs.without_casts(programs.every_operation())
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype("float32")
    values = [ops.convert_to_tensor(x)]
    for step in network.steps:
        weights = {
            part: ops.convert_to_tensor(network.tensors[n]) for part, n in step.weights.items()
        }
        values.append(floats.compute(step, weights, [values[value] for value in step.inputs]))
    for number, expected in zip(network.outputs, reference.run(network, x), strict=True):
        np.testing.assert_allclose(numpy_of(values[number]), expected, rtol=2e-5, atol=2e-5)


def _simulated(network, x):
    """What an int8 network gives, and what it does in floats with weights that moved."""
    made = quantize_network(network, x)
    rng = np.random.default_rng(1)
    arrays = {
        key: array * rng.uniform(0.7, 1.5, array.shape).astype("float32")
        if key[1].endswith(("kernel", "bias"))
        else array
        for key, array in floats_of(made.network, made.origin).items()
    }
    run = Simulation(made.network, made.origin)
    found = run(
        [ops.convert_to_tensor(x)], {key: ops.convert_to_tensor(a) for key, a in arrays.items()}
    )
    expected = Program(with_floats(made.network, made.origin, arrays))(x)
    expected = expected if isinstance(expected, tuple) else (expected,)
    return [numpy_of(y) for y in found], expected


def test_every_operation_in_int8_has_the_bits():
    network = programs.without_casts(programs.every_operation())
    x = np.random.default_rng(0).standard_normal((4, 8, 8, 3)).astype("float32")
    for found, expected in zip(*_simulated(network, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def _rows(drawn, first, activation):
    spec = (2, 2, 1, 1, 1, 0, 0, 0, 0, int(first))
    weights = {"depthwise_kernel": drawn.weights(1, 3, 8, 1), "bias": drawn.weights(8)}
    weights["pointwise_kernel"] = drawn.weights(1, 1, 8, 8)
    given = {"depthwise_activation": "relu", "activation": activation}
    return drawn.emit("convolution", [0], {"spec": spec, **given}, weights)


@pytest.mark.parametrize("activation", ["silu", "none"])
@pytest.mark.parametrize("first", [False, True])
def test_rows_in_int8_have_the_bits(first, activation):
    """As bytes with an activation, and as float32 without."""
    drawn = Drawn(shape=(None, 8, 20) if first else (None, 20, 8))
    network = drawn.network(_rows(drawn, first, activation))
    for found, expected in zip(*_simulated(network, data(network)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_images_in_int8_have_the_bits():
    drawn = Drawn()
    y = drawn.separable(drawn.depthwise(0, "relu6"), 8, residual=0, middle="silu")
    y = drawn.ordinary(y, 6, activation="hard_silu", strides=2)
    spec = conv_spec(2, ((1, 0), (0, 1)))
    largest, mean = (
        drawn.emit("pool", [y], {"function": name, "window": (2, 2), "spec": spec})
        for name in ("max", "average")
    )
    y = drawn.binary("subtract", drawn.pad(largest, [(0, 0), (0, 0), (0, 0), (0, 0)], 0.0), mean)
    head = drawn.ordinary(y, 5, activation="none")  # of float32
    network = drawn.network(drawn.ordinary(y, 4, size=1, strides=2), head, drawn.dense(y, 3))
    for found, expected in zip(*_simulated(network, data(network)), strict=True):
        np.testing.assert_array_equal(found, expected)


# ---- gradients


def _gradient(function, x):
    """The gradient of the sum of a function's results, by the engine that runs."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(lambda x: function(x).sum())(np.asarray(x)))
    if backend == "torch":
        import torch

        tensor = torch.tensor(np.asarray(x), requires_grad=True)
        function(tensor).sum().backward()
        return tensor.grad.numpy()
    import tensorflow as tf

    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        y = tf.reduce_sum(function(tensor))
    return tape.gradient(y, tensor).numpy()


def test_rounding_passes_gradients_where_it_does_not_clamp():
    x = np.float32([-9, -3.2, -3, -0.5, 0, 0.4, 1.5, 2.5, 4, 4.1, 1e9])
    found = numpy_of(straight(ops.convert_to_tensor(x), -3, 4))
    np.testing.assert_array_equal(found, np.clip(np.rint(x), -3, 4))
    gradient = _gradient(lambda x: straight(x, -3, 4), x)
    np.testing.assert_array_equal(gradient, ((x >= -3) & (x <= 4)).astype("float32"))


def test_tables_have_the_slope_of_their_function():
    given = {"function": "silu", "a": 0.0, "b": 0.0, "c": 0.0}
    rounding = Rounding(Scale(0.05, 100), Scale(0.02, 14), None, given)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    table = table_of(rounding.scale, rounding.result, lambda x: x * sigmoid(x))
    k = np.arange(-100, 156).astype("float32")
    found = numpy_of(looked_up(ops.convert_to_tensor(k), table, rounding))
    np.testing.assert_array_equal(found, table.astype("float32") - 14)
    x = k.astype("float64") * 0.05
    real = sigmoid(x) * (1 + x * (1 - sigmoid(x))) * 0.05 / 0.02
    clamped = (x * sigmoid(x) / 0.02 > 241) | (x * sigmoid(x) / 0.02 < -14)
    gradient = _gradient(lambda k: looked_up(k, table, rounding), k)
    np.testing.assert_allclose(gradient[1:-1], np.where(clamped, 0, real)[1:-1], atol=2e-3)
    assert clamped.any()


def test_weights_pass_gradients_to_what_they_stand_for():
    """Of a dense layer with a relu, where all can be said in a few lines."""
    drawn = Drawn(shape=(None, 6))
    network = drawn.network(drawn.dense(0, 5, activation="relu"))
    x = data(network, 32)
    made = quantize_network(network, x)
    arrays = floats_of(made.network, made.origin)
    ((_, (product,)),) = products_of(made.network, made.origin).items()
    # Weights that moved, one of them far beyond what there are numbers for.
    rng = np.random.default_rng(0)
    kernel = arrays[1, "kernel"] + 0.01 * rng.standard_normal((6, 5)).astype("float32")
    kernel[2, 3] *= 4
    bias = rng.standard_normal(5).astype("float32") / 4
    upstream = rng.standard_normal((32, 5)).astype("float32")
    multiplier = arrays[1, "scale"]
    run = Simulation(made.network, made.origin)

    def loss(kernel, bias):
        weights = {(1, "kernel"): kernel, (1, "bias"): bias}
        weights[1, "scale"] = ops.convert_to_tensor(multiplier)
        (y,) = run([ops.convert_to_tensor(x)], weights)
        return y * ops.convert_to_tensor(upstream)

    # The reference: the layer of the rounded weights, whose relu and range clamp.
    frozen = with_floats(
        made.network, made.origin, {**arrays, (1, "kernel"): kernel, (1, "bias"): bias}
    )
    rounded = floats_of(frozen, made.origin)
    source, target = product.source, product.rounding.scale
    seen = source.real(source.quantized(x))
    sums = seen @ rounded[1, "kernel"].astype("float64") + rounded[1, "bias"]
    passed = upstream * ((sums >= 0) & (sums <= target.ends[1]))
    expected = seen.T @ passed, passed.sum(0)
    found = (
        _gradient(lambda kernel: loss(kernel, ops.convert_to_tensor(bias)), kernel),
        _gradient(lambda bias: loss(ops.convert_to_tensor(kernel), bias), bias),
    )
    for gradient, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-4)
    # A scale that grew is that of its own channel alone.
    numbers, _, grown = rounded_weights(
        product, *(ops.convert_to_tensor(array) for array in (kernel, bias, multiplier))
    )
    assert (numpy_of(grown) > multiplier * 1.01).tolist()[3]
    assert np.abs(numpy_of(numbers)).max() == 127


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda drawn: drawn.emit(
                "pool",
                [0],
                {"function": "max", "window": (2, 2), "spec": (1, 1, 2, 2, 0, 0, 0, 0, 0, 0)},
            ),
            "a maximum over windows with dilation",
        ),
        (
            lambda drawn: drawn.emit(
                "resize",
                [0],
                {"interpolation": "bilinear", "factors": (2, 2), "channels_first": False},
            ),
            "bilinear interpolation of images of open sizes",
        ),
    ],
)
def test_steps_that_are_not_trained_are_refused(draw, message):
    drawn = Drawn(shape=(None, None, None, 8))
    drawn.name = "odd"
    network = drawn.network(drawn.ordinary(draw(drawn), 4))
    x = np.random.default_rng(0).standard_normal((4, 10, 9, 8)).astype("float32")
    made = quantize_network(network, x)
    with pytest.raises(ValueError, match=f"the block 'odd' is {message}, which is not trained"):
        TrainableInt8.of(made.network, made.origin, made.record.as_config())
