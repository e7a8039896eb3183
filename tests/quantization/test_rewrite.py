"""Int8 networks against their float ones: near on every kind of layer, and as fused as those."""

import math

import numpy as np
import pytest
from helpers import programs
from helpers.float_networks import Drawn, data, values

from sepconv.geometry import conv_spec
from sepconv.program import reference
from sepconv.program.program import Program
from sepconv.quantization.atoms import split
from sepconv.quantization.observe import observe
from sepconv.quantization.rewrite import rewrite
from sepconv.quantization.scales import channel_axes, scales_of


def quantized(network, x, keep=None, correct=False):
    atoms = split(network)
    seen = observe(atoms.network, [x], channel_axes(atoms.network))
    return rewrite(atoms, seen, scales_of(atoms, seen), keep, correct=correct)


def check(network, floats=(), within=0.03, operations=None, keep=None):
    """Holds an int8 network against its float one, and returns it."""
    x = data(network)
    made = quantized(network, x, keep)
    assert [network.steps[i].operation for i in sorted(made.floats)] == list(floats)
    found = values(made.network, [x], made.network.outputs)
    for number, expected in zip(made.network.outputs, reference.run(network, x), strict=True):
        assert found[number].shape == expected.shape
        apart = np.sqrt(np.mean((found[number] - expected) ** 2) / np.mean(expected**2))
        assert apart < within
        assert apart > 0
    # Where all is of whole numbers, the program has the reference's bits.
    outputs = Program(made.network)(x)
    if not floats:
        for number, y in zip(
            made.network.outputs, outputs if isinstance(outputs, tuple) else [outputs], strict=True
        ):
            np.testing.assert_array_equal(y, found[number].astype("float32"))
    if operations is not None:
        assert [step.operation for step in made.network.steps] == operations
    return made


@pytest.mark.parametrize("middle", ["none", "relu", "relu6", "silu"])
@pytest.mark.parametrize("activation", ["none", "relu", "relu6", "hard_silu"])
def test_separable(middle, activation):
    drawn = Drawn()
    y = drawn.separable(0, 6, middle=middle, activation=activation, strides=2)
    rounded = ["quantized_convolution", "dequantize"]
    last = ["dequantized_convolution"] if activation == "none" else rounded
    made = check(drawn.network(y), operations=["quantize", *last])
    weights = made.network.steps[1].weights
    assert ("table" in weights) == (activation == "hard_silu")
    assert ("depthwise_table" in weights) == (middle == "silu")


def test_residuals_go_with_the_convolution():
    drawn = Drawn()
    y = drawn.separable(drawn.separable(0, 8), 8, residual=0, activation="none")
    z = drawn.separable(y, 8, residual=y, activation="silu")
    check(
        drawn.network(z),
        within=0.06,
        operations=["quantize", *["quantized_convolution"] * 3, "dequantize"],
    )


def test_squeeze_and_excite_is_all_int8():
    drawn = Drawn()
    y = drawn.depthwise(0, "silu")
    gate = drawn.reshape(drawn.reduce(y, "mean", [1, 2], False), [0, 1, 1, 8])
    gate = drawn.ordinary(drawn.ordinary(gate, 4, 1, "silu"), 8, 1, "none")
    y = drawn.binary("multiply", y, drawn.unary(gate, "sigmoid"))
    y = drawn.ordinary(y, 6, 1, "none")
    check(
        drawn.network(y),
        within=0.05,
        operations=[
            "quantize",
            "quantized_convolution",
            "quantized_mean",
            "reshape",
            "quantized_convolution",
            "quantized_convolution",
            "quantized_binary",
            "dequantized_convolution",
        ],
    )


def test_a_classifier_is_int8_up_to_its_softmax():
    drawn = Drawn()
    y = drawn.reduce(drawn.separable(drawn.ordinary(0, 8), 12), "mean", [1, 2], False)
    y = drawn.softmax(drawn.dense(y, 5), 1)
    made = check(drawn.network(y), floats=["softmax"])
    assert [step.operation for step in made.network.steps][-3:] == [
        "quantized_mean",
        "dequantized_dense",
        "softmax",
    ]


def test_sums_that_are_only_moved_become_floats_at_once():
    drawn = Drawn()
    y = drawn.reduce(drawn.ordinary(0, 8), "mean", [1, 2], True)
    y = drawn.transpose(drawn.reshape(drawn.ordinary(y, 6, 1, "none"), [0, 2, 3]), [0, 2, 1])
    made = check(drawn.network(y, drawn.softmax(y, 1)), floats=["softmax"])
    assert [step.operation for step in made.network.steps][-5:] == [
        "quantized_mean",
        "dequantized_convolution",
        *("reshape", "transpose", "softmax"),
    ]
    # What is moved is nowhere bytes.
    assert all(scale is None for value, (_, scale) in made.values.items() if value > 2)


@pytest.mark.parametrize("taken", ["clamp", "function", "sum", "bytes", "residual"])
def test_sums_that_are_not_alone_are_rounded(taken):
    drawn = Drawn()
    activation = "relu" if taken == "clamp" else "none"
    if taken == "residual":
        y = drawn.separable(0, 8, residual=0, activation="none")
    else:
        y = drawn.ordinary(0, 8, activation=activation)
    outputs = {
        "function": lambda: [drawn.unary(y, "tanh")],
        "sum": lambda: [drawn.binary("add", y, 0)],
        "bytes": lambda: [y, drawn.ordinary(y, 4)],
    }
    network = drawn.network(*outputs.get(taken, lambda: [y])())
    operations = [step.operation for step in check(network, within=0.06).network.steps]
    assert operations[1] == "quantized_convolution"


@pytest.mark.parametrize("function", ["add", "subtract", "multiply"])
def test_binary(function):
    drawn = Drawn()
    y = drawn.binary(function, drawn.ordinary(0, 6), drawn.ordinary(0, 6, activation="none"))
    check(drawn.network(drawn.relu(y, largest=1.0)), within=0.05)


def test_a_clamp_after_a_sum_is_part_of_it():
    drawn = Drawn()
    y = drawn.relu(drawn.binary("add", drawn.ordinary(0, 8), 0))
    operations = ["quantize", "quantized_convolution", "quantized_binary", "dequantize"]
    check(drawn.network(y), operations=operations)


def test_a_constant_is_quantised_where_it_is_taken():
    drawn = Drawn()
    y = drawn.binary("add", drawn.ordinary(0, 4), drawn.constant([1.0, -2.0, 0.5, 3.0]))
    check(drawn.network(y), floats=["constant"])


@pytest.mark.parametrize("function", ["gelu", "tanh", "sigmoid", "elu", "softplus", "square"])
def test_functions_become_tables(function):
    drawn = Drawn()
    y = drawn.unary(drawn.ordinary(0, 6, activation="none"), function, 1.0)
    z = drawn.unary(drawn.separable(0, 6), function, 1.0)  # after a clamp, a table of its own
    made = check(drawn.network(y, z), within=0.05)
    # A table of what is not below zero that changes nothing is left out.
    lookups = [step.operation for step in made.network.steps].count("lookup")
    assert lookups == (function != "elu")


def test_a_function_that_is_not_finite_stays_float():
    drawn = Drawn()
    y = drawn.unary(drawn.relu(drawn.ordinary(0, 6)), "linear", 1.0, 0.5)
    y = drawn.unary(y, "log")
    check(drawn.network(y), floats=["unary"], within=0.1)


def test_pools():
    drawn = Drawn()
    pool = {"window": (3, 3), "spec": conv_spec(strides=2, padding="same")}
    y = drawn.ordinary(0, 6, activation="none")
    most = drawn.emit("pool", [y], {"function": "max", **pool})
    mean = drawn.emit("pool", [y], {"function": "average", **pool})
    made = check(drawn.network(most, mean))
    operations = [step.operation for step in made.network.steps]
    assert operations.count("pool") == operations.count("quantized_average_pool") == 1


def test_movement_keeps_bytes():
    drawn = Drawn()
    y = drawn.pad(drawn.ordinary(0, 6), [(0, 0), (1, 0), (0, 2), (0, 0)])
    y = drawn.slice(y, {1: (0, -1, 2), 2: (1, None, 1)})
    y = drawn.transpose(y, [0, 3, 1, 2])
    y = drawn.emit(
        "resize", [y], {"interpolation": "nearest", "factors": (2, 1), "channels_first": True}
    )
    y = drawn.reshape(y, [0, -1])
    check(
        drawn.network(y),
        operations=[
            "quantize",
            "quantized_convolution",
            *("pad", "slice", "transpose", "resize", "reshape"),
            "dequantize",
        ],
    )


def test_pads_of_other_numbers_than_zero():
    drawn = Drawn()
    y = drawn.ordinary(0, 6, activation="none")
    inside = drawn.pad(y, [(0, 0), (1, 1), (0, 0), (0, 0)], 0.5)
    far = drawn.slice(drawn.pad(y, [(0, 0), (1, 1), (0, 0), (0, 0)], 1e6), {1: (1, -1, 1)})
    # The scale of what is padded is that of what is there.
    check(drawn.network(inside, far), floats=["pad", "slice"])
    endless = drawn.slice(
        drawn.pad(y, [(0, 0), (1, 1), (0, 0), (0, 0)], -math.inf), {1: (1, -1, 1)}
    )
    made = quantized(drawn.network(endless), data(drawn.network(endless)))
    assert "its numbers are not all finite" in made.floats.values()


def test_concatenated_values_get_one_scale():
    drawn = Drawn()
    a, b = drawn.ordinary(0, 6), drawn.ordinary(0, 4, activation="none")
    y = drawn.concatenate([a, b, 0], 3)
    made = check(drawn.network(drawn.ordinary(y, 5)), within=0.05)
    # The input is taken by others, too, so it is brought to the scale by a table.
    operations = [step.operation for step in made.network.steps]
    assert operations.count("lookup") == 1
    assert operations.count("concatenate") == 1


def test_scale_is_a_convolution_of_one_tap():
    drawn = Drawn()
    y = drawn.scale(0, 3, drawn.rng.uniform(0.5, 2, 8), drawn.rng.standard_normal(8))
    made = check(drawn.network(drawn.ordinary(y, 6)))
    assert made.network.steps[1].operation == "quantized_convolution"


@pytest.mark.parametrize("first", [False, True])
def test_rows_and_channels_first(first):
    shape = (None, 8, 20) if first else (None, 20, 8)
    drawn = Drawn(shape=shape)
    spec = (2, 2, 1, 1, 1, 0, 0, 0, 0, int(first))
    weights = {"depthwise_kernel": drawn.weights(1, 3, 8, 1), "bias": drawn.weights(8)}
    weights["pointwise_kernel"] = drawn.weights(1, 1, 8, 8)
    given = {"depthwise_activation": "relu", "activation": "silu"}
    y = drawn.emit("convolution", [0], {"spec": spec, **given}, weights)
    y = drawn.scale(y, 1 if first else 2, drawn.weights(8) + 2)
    check(drawn.network(y), within=0.05)


def test_islands_of_float_are_between_conversions():
    drawn = Drawn()
    y = drawn.layer_normalization(drawn.separable(0, 8), 1, 1e-6)
    y = drawn.dense(drawn.dense(y, 16, "silu"), 8)
    made = check(drawn.network(y), floats=["layer_normalization"], within=0.05)
    operations = [step.operation for step in made.network.steps]
    assert operations.count("dequantize") == 1
    assert operations.count("dequantized_dense") == 1
    assert operations.count("quantize") == 2


def test_what_nobody_computes_in_int8_is_not_quantised():
    drawn = Drawn()
    y = drawn.softmax(0, 3)
    y = drawn.unary(drawn.binary("add", y, y), "square")
    x = data(drawn.network(y))
    made = quantized(drawn.network(y), x)
    assert set(made.floats) == {0, 1, 2}
    assert made.floats[2] == "what it takes is float"


def test_every_operation():
    network = programs.without_casts(programs.every_operation())
    x = np.random.default_rng(0).standard_normal((4, 8, 8, 3)).astype("float32")
    made = quantized(network, x)
    kinds = sorted(network.steps[i].operation for i in made.floats)
    assert kinds == ["constant", "layer_normalization", "reduce", "softmax"]
    found = values(made.network, [x], made.network.outputs)
    expected = reference.run(network, x)
    for number, real in zip(made.network.outputs, expected, strict=True):
        np.testing.assert_allclose(found[number], real, atol=0.2 * np.abs(real).max())


def test_blocks_that_are_kept_are_float():
    drawn = Drawn()
    y = drawn.separable(drawn.separable(drawn.separable(0, 8), 8, middle="silu"), 8)
    made = check(
        drawn.network(y),
        floats=["convolution"],
        keep={1: "as asked for"},
        operations=[
            *("quantize", "quantized_convolution", "dequantize"),
            *("convolution", "unary", "convolution"),
            *("quantize", "quantized_convolution", "dequantize"),
        ],
    )
    assert made.floats == {1: "as asked for"}


def test_sums_before_a_block_that_is_kept_become_floats_at_once():
    drawn = Drawn()
    y = drawn.ordinary(drawn.ordinary(0, 6, activation="none"), 4)
    operations = ["quantize", "dequantized_convolution", "convolution"]
    check(drawn.network(y), ["convolution"], keep={1: "as asked for"}, operations=operations)


def test_large_sums_and_infinite_numbers_stay_float():
    drawn = Drawn(shape=(None, 70_000))
    drawn.name = "wide"
    y = drawn.emit("dense", [0], {"activation": "none"}, {"kernel": np.ones((70_000, 2))})
    made = quantized(drawn.network(y), data(drawn.network(y)))
    assert made.floats == {0: "its sums could leave int32"}
    drawn = Drawn()
    y = drawn.ordinary(drawn.unary(0, "log"), 4)
    x = data(drawn.network(y))
    assert set(quantized(drawn.network(y), x).floats) == {0, 1}


def test_values_are_where_they_are_said_to_be():
    drawn = Drawn()
    y = drawn.separable(drawn.separable(0, 8), 8, activation="silu")
    network = drawn.network(y)
    x = data(network)
    made = quantized(network, x)
    atoms = split(network)
    expected = reference.values(atoms.network, x)
    numbers = [number for number, _ in made.values.values()]
    found = values(made.network, [x], numbers)
    assert set(made.values) == {0, 2, 5}
    for value, (number, scale) in made.values.items():
        real = found[number] if scale is None else scale.real(found[number].astype(np.uint8))
        apart = np.sqrt(np.mean((real - expected[value]) ** 2) / np.mean(expected[value] ** 2))
        assert apart < 0.04
