"""Weights of int8 networks as floats, and rounded again."""

import numpy as np
import pytest
from helpers import programs
from helpers.float_networks import Drawn, data, values

from sepconv.program import reference
from sepconv.program.network import INT8_PRODUCTS
from sepconv.program.validate import validate
from sepconv.quantization.dequantized import dequantized
from sepconv.quantization.quantize import quantize_network
from sepconv.quantization.unrounded import floats_of, products_of, with_floats


@pytest.fixture(scope="module")
def network():
    drawn = Drawn()
    y = drawn.separable(drawn.depthwise(0, "relu6"), 8, residual=0, middle="silu")
    y = drawn.ordinary(y, 6, activation="hard_silu", strides=2)
    y = drawn.dense(drawn.reduce(y, "mean", [1, 2], False), 5, activation="relu")
    return drawn.network(drawn.softmax(drawn.dense(y, 4), 1))


@pytest.fixture(scope="module")
def made(network):
    return quantize_network(network, data(network, 16))


def test_what_is_not_trained_is_rounded_to_the_same_bits(network, made):
    again = with_floats(made.network, made.origin, floats_of(made.network, made.origin))
    validate(again)
    assert again.steps == made.network.steps
    for one, other in zip(again.tensors, made.network.tensors, strict=True):
        np.testing.assert_array_equal(one, other)


def test_floats_are_numbers_times_scales(made):
    """As the sums of an int8 step are: multiplied, they are what the next value's scale says."""
    floats, seen = floats_of(made.network, made.origin), 0
    for i, products in products_of(made.network, made.origin).items():
        step = made.network.steps[i]
        for product in products:
            numbers = made.network.tensors[step.weights[product.kernel]].astype("float64")
            multiplier = made.network.tensors[step.weights[product.scale]].astype("float64")
            scale = multiplier * product.rounding.scale.scale / product.source.scale
            if product.depthwise:
                scale = scale.reshape(numbers.shape[-2:])
            np.testing.assert_allclose(floats[i, product.kernel], numbers * scale, rtol=1e-6)
            seen += 1
    assert seen == 6


def test_weights_that_move_are_rounded_to_the_nearest(network, made):
    floats = floats_of(made.network, made.origin)
    rng = np.random.default_rng(0)
    moved = {
        key: array * rng.uniform(0.7, 1.6, array.shape).astype("float32")
        if key[1].endswith(("kernel", "bias"))
        else array
        for key, array in floats.items()
    }
    again = with_floats(made.network, made.origin, moved)
    validate(again)
    found = floats_of(again, made.origin)
    for key in moved:
        if key[1].endswith("kernel") and again.steps[key[0]].operation in INT8_PRODUCTS:
            (product,) = (p for p in products_of(again, made.origin)[key[0]] if p.kernel == key[1])
            scale = found[key[0], product.scale] * product.ratio
            scale = scale.reshape(found[key].shape[-2:]) if product.depthwise else scale
            assert (np.abs(found[key] - moved[key]) <= 0.5001 * scale).all()
            # No weight is clamped: scales have grown where they had to.
            assert np.abs(moved[key]).max() > np.abs(floats[key]).max()
    # The steps' attributes, and so all scales of values, are the same.
    assert [s.attributes for s in again.steps] == [s.attributes for s in made.network.steps]


def test_weights_that_cannot_be_rounded_are_refused(made):
    floats = floats_of(made.network, made.origin)
    key = next(key for key in floats if key[1] == "depthwise_kernel")
    with pytest.raises(ValueError, match=r"must be finite.*depthwise_kernel with \d+ that are not"):
        with_floats(made.network, made.origin, {**floats, key: floats[key] * np.float32(np.nan)})
    drawn = Drawn(shape=(None, 70_000))
    kernel = np.zeros((70_000, 1), "float32")
    kernel[:2] = 1
    drawn.name = "wide"
    y = drawn.emit("dense", [0], {"activation": "none"}, {"kernel": kernel})
    wide = quantize_network(drawn.network(y), data(drawn.network(y), 2))
    floats = floats_of(wide.network, wide.origin)
    (key,) = (key for key in floats if key[1] == "kernel")
    with pytest.raises(ValueError, match="sums of the block 'wide' could leave int32"):
        with_floats(wide.network, wide.origin, {**floats, key: np.ones_like(floats[key])})


def test_the_float_network_has_the_rounded_weights(network, made):
    floats = dequantized(made.network, made.origin)
    validate(floats)
    assert floats.output_names == network.output_names
    operations = [step.operation for step in floats.steps]
    assert operations == [
        *("convolution", "convolution", "unary", "convolution", "convolution", "unary"),
        *("reduce", "dense", "dense", "softmax"),
    ]
    expected = floats_of(made.network, made.origin)
    kernels = [array for (_, part), array in expected.items() if part.endswith("kernel")]
    found = [
        floats.tensors[n]
        for step in floats.steps
        for part, n in step.weights.items()
        if part.endswith("kernel")
    ]
    for one, other in zip(found, kernels, strict=True):
        np.testing.assert_array_equal(one, other)
    x = data(network, 8)
    y, z = (reference.run(each, x)[0] for each in (floats, made.network))
    assert 0 < np.abs(y - z).max() < 0.05
    assert np.abs(y - reference.run(network, x)[0]).max() < 0.05


def test_the_float_network_of_every_operation():
    network = programs.without_casts(programs.every_operation())
    x = np.random.default_rng(0).standard_normal((4, 8, 8, 3)).astype("float32")
    made = quantize_network(network, x)
    floats = dequantized(made.network, made.origin)
    validate(floats)
    assert not any("quantize" in step.operation for step in floats.steps)
    found, expected = reference.run(floats, x), reference.run(network, x)
    rounded = values(made.network, [x], made.network.outputs)
    for y, z, number in zip(found, expected, made.network.outputs, strict=True):
        np.testing.assert_allclose(y, z, atol=0.2 * np.abs(z).max())
        np.testing.assert_allclose(y, rounded[number], atol=0.2 * np.abs(z).max())
