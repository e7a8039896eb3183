"""What a network is simplified to: its steps, and results that stay what they were."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sepconv.program import reference
from sepconv.program.building.builder import Builder
from sepconv.program.building.simplify import simplify
from sepconv.program.network import Input, Network

RNG = np.random.default_rng(0)
NONE = {"depthwise_activation": "none", "activation": "none"}


def numbers(*shape):
    return RNG.normal(size=shape)


def simplified(shape, build):
    """The steps that are left of what `build` writes, as (operation, attributes) of each.

    `build` gets a builder and the input, and gives one output or more.
    """
    builder = Builder("float64", [Input("x", (None, *shape))])
    builder.name = "last"
    outputs = build(builder, 0)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    names = [str(i) for i in range(len(outputs))]
    network = Network("float64", builder.inputs, builder.steps, outputs, names, builder.tensors)
    simple = simplify(network)
    x = numbers(2, *(n or 5 for n in shape))
    for want, got in zip(reference.run(network, x), reference.run(simple, x), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
    assert simplify(simple).steps == simple.steps
    return simple


def operations(network):
    return [step.operation for step in network.steps]


def functions(network):
    return [step.attributes.get("function", step.operation) for step in network.steps]


def mix(builder, x, filters=4, **attributes):
    spec = [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    kernel = numbers(3, 3, builder.shapes[x][-1], filters)
    weights = {"pointwise_kernel": kernel, "bias": numbers(filters)}
    return builder.emit("convolution", [x], {"spec": spec, **NONE, **attributes}, weights)


def depthwise(builder, x):
    spec = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    weights = {"depthwise_kernel": numbers(2, 2, builder.shapes[x][-1], 2)}
    return builder.emit("convolution", [x], {"spec": spec, **NONE}, weights)


def dense(builder, x, filters=4):
    weights = {"kernel": numbers(builder.shapes[x][-1], filters)}
    return builder.emit("dense", [x], {"activation": "none"}, weights)


@pytest.mark.parametrize(
    "build",
    [
        lambda b, x: b.linear(x),
        lambda b, x: b.unary(x, "clip", -math.inf, math.inf),
        lambda b, x: b.scale(x, 1),
        lambda b, x: b.concatenate([x], 1),
        lambda b, x: b.pad(x, [(0, 0)] * 3),
        lambda b, x: b.slice(x, {}),
        lambda b, x: b.transpose(x, [0, 1, 2]),
        lambda b, x: b.reshape(x, [0, 3, -1]),
        lambda b, x: b.reshape(x, [0, 0, 4]),
        lambda b, x: b.transpose(b.transpose(x, [0, 2, 1]), [0, 2, 1]),
    ],
)
def test_steps_that_do_nothing(build):
    network = simplified((3, 4), build)
    assert network.steps == []
    assert network.outputs == [0]


def test_steps_that_do_something():
    def build(b, x):
        return [
            b.reshape(x, [0, 4, 3]),
            b.reshape(x, [0, -1, 2]),
            b.reshape(x, [0, -1]),
            b.slice(x, {1: (0, None, 2)}),
            b.transpose(b.transpose(x, [0, 2, 1]), [2, 1, 0]),
            b.unary(x, "clip", -math.inf, 1.0),
        ]

    assert len(simplified((3, 4), build).steps) == 6


def test_what_no_output_needs_is_left_out():
    def build(b, x):
        dense(b, x)
        return b.unary(x, "exp")

    network = simplified((3,), build)
    assert functions(network) == ["exp"]
    assert network.tensors == []


def test_constants():
    def build(b, x):
        table = b.unary(b.constant(numbers(3)), "exp")
        return b.binary("multiply", x, b.scale(table, 0, [1, 2, 3]))

    assert operations(simplified((3,), build)) == ["constant", "binary"]


def test_hard_functions_by_parts():
    def gate(b, x):
        return b.relu(b.linear(x, 1, 3), largest=6.0)

    sixth = float(np.float32(1 / 6))
    assert functions(simplified((3,), lambda b, x: b.linear(gate(b, x), 1 / 6))) == ["hard_sigmoid"]
    for build in (
        lambda b, x: b.binary("multiply", x, b.linear(gate(b, x), 1 / 6)),
        lambda b, x: b.binary("multiply", b.linear(gate(b, x), 1 / 6), x),
        lambda b, x: b.linear(b.binary("multiply", gate(b, x), x), 1 / 6),
        lambda b, x: b.linear(b.binary("multiply", x, gate(b, x)), 1 / 6),
    ):
        assert functions(simplified((3,), build)) == ["hard_silu"]
        assert operations(simplified((3,), lambda b, x, f=build: f(b, dense(b, x)))) == ["dense"]
    assert functions(
        simplified((3,), lambda b, x: b.binary("multiply", b.unary(x, "sigmoid"), x))
    ) == ["silu"]
    for build in (
        lambda b, x: b.linear(gate(b, x), 1 / 5),
        lambda b, x: b.linear(b.binary("multiply", x, b.unary(x, "exp")), 1 / 6),
        lambda b, x: b.linear(b.relu(b.linear(x, 1, 2), largest=6.0), 1 / 6),
        lambda b, x: b.binary("multiply", b.unary(x, "exp"), b.unary(x, "sigmoid")),
    ):
        assert len(simplified((3,), build).steps) > 1
    assert sixth != 1 / 6  # and yet it is taken for it
    builder = Builder("float32", [Input("x", (None,))])
    y = builder.linear(gate(builder, 0), sixth)
    network = Network("float32", builder.inputs, builder.steps, [y], ["y"], [])
    assert functions(simplify(network)) == ["hard_sigmoid"]


@pytest.mark.parametrize("before", [mix, depthwise, dense])
def test_activations(before):
    for name, write in {
        "relu": lambda b, x: b.relu(x),
        "relu6": lambda b, x: b.relu(x, largest=6.0),
        "silu": lambda b, x: b.unary(x, "silu"),
        "hard_silu": lambda b, x: b.unary(x, "hard_silu"),
    }.items():
        network = simplified((5, 6, 3), lambda b, x, f=write: f(b, before(b, x)))
        (step,) = network.steps
        assert step.attributes["activation"] == name
        twice = simplified((5, 6, 3), lambda b, x, f=write: f(b, f(b, before(b, x))))
        assert len(twice.steps) == 2
    for write in (lambda b, x: b.relu(x, 0.1), lambda b, x: b.unary(x, "tanh")):
        network = simplified((5, 6, 3), lambda b, x, f=write: f(b, before(b, x)))
        assert len(network.steps) == 2


def test_what_others_use_stays():
    def build(b, x):
        y = mix(b, x)
        return [y, b.relu(y), b.scale(y, -1, numbers(4))]

    assert len(simplified((5, 6, 3), build).steps) == 3


def test_residuals():
    def build(b, x, first=mix, second=mix):
        y, z = first(b, x), second(b, x)
        return b.relu(b.binary("add", y, z))

    network = simplified((5, 6, 3), build)
    assert operations(network) == ["convolution"] * 2
    assert network.steps[1].inputs == [0, 1]
    assert network.steps[1].attributes["activation"] == "relu"
    turned = simplified((5, 6, 3), lambda b, x: b.binary("add", x, dense(b, x, 3)))
    assert [step.inputs for step in turned.steps] == [[0, 0]]
    assert len(simplified((5, 6, 3), lambda b, x: build(b, x, depthwise, depthwise)).steps) == 4
    # Only where both have one shape, and nothing was added or applied yet.
    row = simplified((5, 6, 3), lambda b, x: b.binary("add", mix(b, x), b.constant(numbers(4))))
    assert operations(row) == ["convolution", "constant", "binary"]
    unknown = simplified((None, 6, 3), build)
    assert "binary" in operations(unknown)
    active = simplified((5, 6, 4), lambda b, x: b.binary("add", x, b.relu(mix(b, x))))
    assert operations(active) == ["convolution", "binary"]
    three = simplified((5, 6, 4), lambda b, x: b.binary("add", x, b.binary("add", x, mix(b, x))))
    assert operations(three) == ["convolution", "binary"]
    double = simplified((5, 6, 3), lambda b, x: b.binary("add", *[mix(b, x)] * 2))
    assert operations(double) == ["convolution", "binary"]


@pytest.mark.parametrize("before", [mix, depthwise, dense])
def test_scales_after_weights(before):
    def each(b, x):
        return b.scale(x, -1, numbers(b.shapes[x][-1]), numbers(b.shapes[x][-1]))

    for write in (each, lambda b, x: b.linear(x, 2, 3), lambda b, x: b.linear(each(b, x), 0.5)):
        network = simplified((5, 6, 3), lambda b, x, f=write: b.relu(f(b, before(b, x))))
        (step,) = network.steps
        assert step.attributes["activation"] == "relu"
        assert "bias" in step.weights
    scaled = simplified((5, 6, 3), lambda b, x: b.linear(before(b, x), 2.0))
    assert ("bias" in scaled.steps[0].weights) == (before is mix)
    rows = simplified(
        (5, 6, 3), lambda b, x: b.scale(before(b, x), 1, numbers(b.shapes[before(b, x)][1]))
    )
    assert operations(rows)[-1] == "scale"


def test_scales_one_after_the_other():
    def each(b, x, axis=-1):
        return b.scale(x, axis, numbers(4), numbers(4))

    for build, count in (
        (lambda b, x: b.linear(b.linear(x, 2, 3), 4, 5), 1),
        (lambda b, x: each(b, b.linear(x, 2, 3)), 1),
        (lambda b, x: b.linear(each(b, x), 4, 5), 1),
        (lambda b, x: each(b, each(b, x)), 1),
        (lambda b, x: b.scale(b.scale(x, 1, numbers(4)), 1, None, numbers(4)), 1),
        (lambda b, x: each(b, each(b, x), 1), 2),
        (lambda b, x: b.linear(b.relu(each(b, x)), 2), 3),
    ):
        assert len(simplified((4, 4), build).steps) == count


def test_padding_before_a_convolution():
    around = [(0, 0), (1, 2), (0, 3), (0, 0)]
    network = simplified((5, 6, 3), lambda b, x: depthwise(b, b.pad(x, around)))
    (step,) = network.steps
    assert step.attributes["spec"][5:9] == [1, 2, 0, 3]
    channels = [(0, 0), (0, 0), (0, 0), (0, 1)]
    for build in (
        lambda b, x: depthwise(b, b.pad(x, around, 1.0)),
        lambda b, x: depthwise(b, b.pad(x, channels)),
        lambda b, x: mix(b, b.pad(x, around)),
    ):
        assert operations(simplified((5, 6, 3), build)) == ["pad", "convolution"]

    def product(b, x):
        spec = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
        weights = {"pointwise_kernel": numbers(1, 1, 3, 2)}
        return b.emit("convolution", [b.pad(x, around)], {"spec": spec, **NONE}, weights)

    assert operations(simplified((5, 6, 3), product)) == ["pad", "convolution"]

    def row(b, x):
        spec = [1, 1, 1, 1, 0, 0, 0, 0, 0, 1]  # channels first
        weights = {"depthwise_kernel": numbers(1, 2, 5, 1)}
        padded = b.pad(x, [(0, 0), (0, 0), (2, 1)])
        return b.emit("convolution", [padded], {"spec": spec, **NONE}, weights)

    (step,) = simplified((5, 6), row).steps
    assert step.attributes["spec"][5:9] == [0, 0, 2, 1]


def test_names_are_those_of_the_last_step():
    def build(b, x):
        y = mix(b, x)
        b.name = "relu"
        return b.relu(y)

    assert [step.name for step in simplified((5, 6, 3), build).steps] == ["relu"]


def depthwise_and_pointwise(builder, x, between="none", stride=1):
    """A depthwise convolution and a 1x1 one, as steps of their own."""
    spec = [2, 2, 1, 1, 0, 1, 1, 1, 1, 0]
    weights = {"depthwise_kernel": numbers(3, 3, 4, 1), "bias": numbers(4)}
    attributes = {"spec": spec, "depthwise_activation": "none", "activation": between}
    y = builder.emit("convolution", [x], attributes, weights)
    plain = [stride, stride, 1, 1, 0, 0, 0, 0, 0, 0]
    weights = {"pointwise_kernel": numbers(1, 1, 4, 5), "bias": numbers(5)}
    attributes = {"spec": plain, "depthwise_activation": "none", "activation": "none"}
    return y, builder.emit("convolution", [y], attributes, weights)


def test_a_depthwise_convolution_and_a_1x1_one_are_one_step():
    network = simplified((6, 6, 4), lambda b, x: b.relu(depthwise_and_pointwise(b, x, "relu6")[1]))
    assert operations(network) == ["convolution"]
    given = network.steps[0].attributes
    assert given["depthwise_activation"] == "relu6"
    assert given["activation"] == "relu"
    assert given["spec"][:2] == [2, 2]


def test_a_depthwise_convolution_that_is_used_twice_stays():
    network = simplified((6, 6, 4), lambda b, x: list(depthwise_and_pointwise(b, x)))
    assert operations(network) == ["convolution"] * 2


def test_a_1x1_convolution_with_strides_stays():
    network = simplified((6, 6, 4), lambda b, x: depthwise_and_pointwise(b, x, stride=2)[1])
    assert operations(network) == ["convolution"] * 2


def test_what_follows_joined_convolutions():
    def scaled(b, x):
        joined = b.concatenate([mix(b, x, 3), dense(b, x, 2), mix(b, x, 4)], 3)
        return b.unary(b.scale(joined, 3, numbers(9), numbers(9)), "silu")

    network = simplified((5, 5, 4), scaled)
    assert operations(network) == ["convolution", "dense", "convolution", "concatenate"]
    assert [step.attributes["activation"] for step in network.steps[:3]] == ["silu"] * 3
    assert network.steps[-1].name == "last"

    def scaled_alike(b, x):
        joined = b.concatenate([depthwise(b, x), depthwise(b, x)], 1)
        return b.relu(b.linear(joined, 3.0, -1.0))

    network = simplified((5, 5, 4), scaled_alike)
    assert operations(network) == ["convolution", "convolution", "concatenate"]

    def without_a_shift(b, x):
        return b.scale(b.concatenate([mix(b, x), mix(b, x)], 3), 3, numbers(8))

    assert len(simplified((5, 5, 4), without_a_shift).steps) == 3


@pytest.mark.parametrize(
    "build",
    [
        # Of another axis than the channels, of what is no convolution, of one that is active or has
        # another use, of one value twice.
        lambda b, x: b.scale(b.concatenate([mix(b, x), mix(b, x)], 1), 3, numbers(4)),
        lambda b, x: b.scale(b.concatenate([mix(b, x), mix(b, x)], 1), 1, numbers(10)),
        lambda b, x: b.unary(b.concatenate([mix(b, x), x], 3), "silu"),
        lambda b, x: b.unary(b.concatenate([mix(b, x, activation="relu"), mix(b, x)], 3), "silu"),
        lambda b, x: b.unary(b.concatenate([mix(b, x)] * 2, 3), "silu"),
        lambda b, x: b.unary(b.concatenate([mix(b, x), mix(b, x)], 3), "tanh"),
        lambda b, x: b.scale(
            b.concatenate([b.binary("add", mix(b, x), x), mix(b, x)], 3), 3, numbers(8)
        ),
    ],
)
def test_what_joined_convolutions_cannot_take(build):
    assert operations(simplified((5, 5, 4), build))[-1] in ("scale", "unary")


def test_a_joined_value_that_others_use():
    def build(b, x):
        joined = b.concatenate([mix(b, x), mix(b, x)], 3)
        one = mix(b, x)
        return [joined, b.unary(joined, "silu"), one, b.unary(b.concatenate([one, x], 3), "silu")]

    assert operations(simplified((5, 5, 4), build)).count("unary") == 2


def test_slices_of_joined_values():
    def whole(b, x):
        joined = b.concatenate([b.unary(x, "exp"), b.unary(x, "sin"), x], 1)
        return [
            b.slice(joined, {1: (0, 3, 1)}),
            b.slice(joined, {1: (3, 6, 1), 2: (1, 3, 1)}),
            b.slice(joined, {1: (-3, None, 1)}),
            b.slice(joined, {1: (3, -4, 1)}),
            b.slice(joined, {1: (0, 3, 2)}),
        ]

    network = simplified((3, 4), whole)
    assert operations(network) == ["unary", "unary", "slice", "slice", "slice"]
    assert network.outputs[0] == 1
    assert network.outputs[2] == 0

    def across(b, x):
        joined = b.concatenate([b.unary(x, "exp"), x], 1)
        return [b.slice(joined, {1: (2, 4, 1)}), b.slice(joined, {1: (0, None, 4)})]

    assert operations(simplified((3, 4), across)).count("slice") == 2
