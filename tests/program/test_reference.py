"""The reference of programs, against values worked out by hand, and shapes against its arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sepconv.program import reference, shapes
from sepconv.program.network import (
    ACTIVATIONS,
    BINARY,
    OPERATIONS,
    QUANTIZED_OPERATIONS,
    UNARY,
    Input,
    Network,
    Step,
)

SPEC = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
SAME = [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]


def network_of(operation, inputs, attributes=None, weights=None, unknown=True):
    """A network of one step, with inputs whose sizes are unknown where they may be."""
    entries = [
        Input(f"x{i}", tuple(None if unknown else n for n in np.shape(x)))
        for i, x in enumerate(inputs)
    ]
    tensors = [np.asarray(w, "float64") for w in (weights or {}).values()]
    parts = {part: i for i, part in enumerate(weights or {})}
    step = Step(operation, "step", list(range(len(inputs))), attributes or {}, parts)
    return Network("float64", entries, [step], [len(inputs)], ["y"], tensors)


def step(operation, *inputs, weights=None, **attributes):
    """The result of one step, after its shape was held against the one expected."""
    known = network_of(operation, inputs, attributes, weights, unknown=False)
    (y,) = reference.run(known, *inputs)
    assert shapes.shapes(known)[-1] == y.shape
    return y


def test_every_kind_of_step_and_every_function_has_a_meaning():
    assert {*reference._FUNCTIONS, *QUANTIZED_OPERATIONS} == set(OPERATIONS)
    assert set(reference.UNARY_FUNCTIONS) - {"relu6"} == set(UNARY)
    assert set(reference._BINARY_FUNCTIONS) == set(BINARY)
    assert set(reference.UNARY_FUNCTIONS) >= set(ACTIVATIONS) - {"none"}


#: Of each function: its numbers, x and what it gives.
VALUES = {
    "relu": ((0.5, 4, 1), [-1, 1, 3, 4, 9], [-1, 1, 3, 4, 4]),
    "sigmoid": ((), [0, 800, -800], [0.5, 1, 0]),
    "hard_sigmoid": ((), [-4, -3, 0, 1.5, 3, 9], [0, 0, 0.5, 0.75, 1, 1]),
    "silu": ((), [0, 800], [0, 800]),
    "hard_silu": ((), [-4, 0, 1, 5], [0, 0, 4 / 6, 5]),
    "tanh": ((), [0, 1], [0, math.tanh(1)]),
    "gelu": ((), [0, 1, -1], [0, 0.8413447460685429, -0.15865525393145707]),
    "gelu_tanh": ((), [0, 1], [0, 0.8411919906082768]),
    "elu": ((2,), [-1, 3], [2 * math.expm1(-1), 3]),
    "selu": ((), [-1, 3], [-1.1113307378125625, 3 * 1.0507009873554805]),
    "celu": ((2,), [-1, 3], [2 * math.expm1(-0.5), 3]),
    "softplus": ((), [0, 800], [math.log(2), 800]),
    "softsign": ((), [-1, 3], [-0.5, 0.75]),
    "mish": ((), [0, 1], [0, math.tanh(math.log1p(math.e))]),
    "exp": ((), [0, 1], [1, math.e]),
    "log": ((), [1, math.e], [0, 1]),
    "sqrt": ((), [4], [2]),
    "rsqrt": ((), [4], [0.5]),
    "square": ((), [-3], [9]),
    "abs": ((), [-3, 2], [3, 2]),
    "negative": ((), [-3, 2], [3, -2]),
    "reciprocal": ((), [4, -np.inf], [0.25, 0]),
    "erf": ((), [0, 1], [0, 0.8427007929497149]),
    "sin": ((), [0, math.pi / 2], [0, 1]),
    "cos": ((), [0, math.pi], [1, -1]),
    "floor": ((), [-1.5, 1.5], [-2, 1]),
    "ceil": ((), [-1.5, 1.5], [-1, 2]),
    "round": ((), [0.5, 1.5, -2.5], [0, 2, -2]),
    "sign": ((), [-2, 0, 7], [-1, 0, 1]),
    "clip": ((-1, 2), [-5, 0, 5], [-1, 0, 2]),
    "linear": ((3, 1), [-1, 2], [-2, 7]),
    "soft_shrink": ((1,), [-3, -1, 0.5, 2], [-2, 0, 0, 1]),
    "hard_shrink": ((1,), [-3, -1, 0.5, 2], [-3, 0, 0, 2]),
    "threshold": ((1, 7), [1, 2], [7, 2]),
    "squareplus": ((9,), [0, 4], [1.5, 4.5]),
    "sparse_plus": ((), [-2, 0, 3], [0, 0.25, 3]),
}


@pytest.mark.parametrize("function", UNARY)
def test_functions_of_one_array(function):
    numbers, x, expected = VALUES[function]
    a, b, c = (*numbers, 0, 0, 0)[:3]
    y = step("unary", np.array(x, float), function=function, a=a, b=b, c=c)
    np.testing.assert_allclose(y, expected, rtol=1e-14, atol=1e-15)


def test_relu_without_a_bound_keeps_infinities_and_nan():
    x = np.array([-np.inf, np.inf, np.nan])
    y = step("unary", x, function="relu", a=0, b=np.inf, c=0)
    np.testing.assert_array_equal(y, [0, np.inf, np.nan])


def test_functions_of_two_arrays():
    a, b = np.array([[1.0], [4.0]]), np.array([2.0, 3.0])
    for function, expected in {
        "add": [[3, 4], [6, 7]],
        "subtract": [[-1, -2], [2, 1]],
        "multiply": [[2, 3], [8, 12]],
        "divide": [[1 / 2, 1 / 3], [2, 4 / 3]],
        "maximum": [[2, 3], [4, 4]],
        "minimum": [[1, 1], [2, 3]],
        "power": [[1, 1], [16, 64]],
    }.items():
        np.testing.assert_allclose(step("binary", a, b, function=function), expected)


def test_convolutions():
    x = np.arange(6.0).reshape(1, 3, 2)  # a row of three pixels of two channels
    kernel = np.ones((1, 2, 2, 1))
    given = {"spec": SPEC, "depthwise_activation": "none", "activation": "none"}
    y = step("convolution", x, weights={"depthwise_kernel": kernel}, **given)
    np.testing.assert_array_equal(y, [[[2, 4], [6, 8]]])
    weights = {
        "depthwise_kernel": kernel,
        "depthwise_bias": [-3, -3],
        "pointwise_kernel": np.ones((1, 1, 2, 1)),
        "bias": [1],
    }
    given = {"spec": SPEC, "depthwise_activation": "relu", "activation": "relu6"}
    y = step("convolution", x, np.full((1, 2, 1), -1.0), weights=weights, **given)
    np.testing.assert_array_equal(y, [[[1], [6]]])
    first = [1, 1, 1, 1, 1, 0, 0, 0, 0, 1]
    given = {"spec": first, "depthwise_activation": "none", "activation": "none"}
    y = step(
        "convolution", np.ones((1, 1, 3)), weights={"pointwise_kernel": kernel[:, :, :1]}, **given
    )
    np.testing.assert_array_equal(y, [[[2, 2, 1]]])


def test_products():
    x, kernel = np.array([[1.0, 2.0]]), np.array([[1.0, -1.0], [1.0, -1.0]])
    weights = {"kernel": kernel, "bias": [1, 1]}
    np.testing.assert_array_equal(step("dense", x, weights=weights, activation="relu"), [[4, 0]])
    y = step("dense", x, x, weights={"kernel": kernel}, activation="relu6")
    np.testing.assert_array_equal(y, [[4, 0]])
    y = step("dense", 5 * x, weights={"kernel": kernel}, activation="relu6")
    np.testing.assert_array_equal(y, [[6, 0]])


def test_scales():
    x = np.ones((1, 2, 3))
    y = step("scale", x, weights={"scale": [2, 3], "shift": [1, 0]}, axis=1)
    np.testing.assert_array_equal(y[0, :, 0], [3, 3])
    np.testing.assert_array_equal(
        step("scale", x, weights={"shift": [1, 2, 3]}, axis=2)[0, 0], [2, 3, 4]
    )
    np.testing.assert_array_equal(step("scale", x, axis=2), x)


def test_pools():
    x = np.arange(1.0, 7.0).reshape(1, 3, 2, 1)
    y = step("pool", x, function="average", window=[2, 2], spec=SAME)
    np.testing.assert_array_equal(y[0, :, :, 0], [[2.5, 3], [4.5, 5], [5.5, 6]])
    y = step("pool", -x, function="max", window=[2, 2], spec=SAME)
    np.testing.assert_array_equal(y[0, :, :, 0], [[-1, -2], [-3, -4], [-5, -6]])
    spec = [1, 2, 1, 2, 0, 0, 0, 1, 0, 1]  # a row, channels first, a pixel apart, one before
    y = step("pool", x.reshape(1, 1, 6), function="max", window=[1, 2], spec=spec)
    np.testing.assert_array_equal(y, [[[2, 4, 6]]])


def test_reductions():
    x = np.arange(6.0).reshape(1, 2, 3)
    for function, expected in {
        "mean": [1, 4],
        "max": [2, 5],
        "min": [0, 3],
        "sum": [3, 12],
    }.items():
        y = step("reduce", x, function=function, axes=[2], keepdims=False)
        np.testing.assert_array_equal(y, [expected])
    assert step("reduce", x, function="sum", axes=[0, 2], keepdims=True).shape == (1, 2, 1)


def test_moves():
    x = np.arange(6.0).reshape(1, 2, 3)
    assert step("concatenate", x, x, x, axis=1).shape == (1, 6, 3)
    y = step("pad", x, before=[0, 1, 0], after=[0, 0, 2], value=9.0)
    np.testing.assert_array_equal(y[0], [[9] * 5, [0, 1, 2, 9, 9], [3, 4, 5, 9, 9]])
    y = step("slice", x, starts=[0, -1, 0], stops=[None, None, -1], steps=[1, 1, 1])
    np.testing.assert_array_equal(y, [[[3, 4]]])
    y = step("slice", x, starts=[0, 0, 0], stops=[1, 9, 3], steps=[1, 1, 2])
    np.testing.assert_array_equal(y, [[[0, 2], [3, 5]]])
    np.testing.assert_array_equal(step("transpose", x, permutation=[2, 0, 1])[:, 0, 0], [0, 1, 2])
    np.testing.assert_array_equal(step("constant", weights={"value": [1, 2]}), [1, 2])


@pytest.mark.parametrize(
    ("shape", "wanted", "expected"),
    [
        ((2, 3, 4), [0, -1], (2, 12)),
        ((2, 3, 4), [0, 0, 2, -1], (2, 3, 2, 2)),
        ((2, 3, 4), [6, 4], (6, 4)),
        ((2, 3, 4), [-1, 3, 4], (2, 3, 4)),
        ((0, 3, 4), [0, -1], (0, 12)),
        ((2,), [0, 1], (2, 1)),
    ],
)
def test_reshapes(shape, wanted, expected):
    assert step("reshape", np.ones(shape), shape=wanted).shape == expected


def test_enlarged_images():
    x = np.array([1.0, 3.0]).reshape(1, 1, 2, 1)
    given = {"factors": [2, 2], "channels_first": False}
    y = step("resize", x, interpolation="nearest", **given)
    np.testing.assert_array_equal(y[0, :, :, 0], [[1, 1, 3, 3]] * 2)
    y = step("resize", x, interpolation="bilinear", **given)
    np.testing.assert_array_equal(y[0, :, :, 0], [[1, 1.5, 2.5, 3]] * 2)
    y = step(
        "resize",
        x.reshape(1, 1, 1, 2),
        interpolation="nearest",
        factors=[1, 3],
        channels_first=True,
    )
    np.testing.assert_array_equal(y[0, 0], [[1, 1, 1, 3, 3, 3]])


def test_normalizations():
    x = np.array([[[1.0, 3.0], [5.0, 7.0]]])
    y = step(
        "layer_normalization", x, axes=1, epsilon=0.0, weights={"gamma": [2, 2], "beta": [1, 0]}
    )
    np.testing.assert_allclose(y, [[[-1, 2], [-1, 2]]])
    y = step("layer_normalization", x, axes=2, epsilon=11.0)
    np.testing.assert_allclose(y, (x - 4) / 4)
    y = step("softmax", np.array([[800.0, 800.0, -800.0]]), axis=1, logarithm=False)
    np.testing.assert_allclose(y, [[0.5, 0.5, 0]])
    y = step("softmax", x, axis=1, logarithm=True)
    np.testing.assert_allclose(np.exp(y).sum(1), [[1, 1]])


def test_what_is_not_known_of_shapes():
    x = np.ones((2, 3, 4))
    for operation, attributes, expected in [
        ("reshape", {"shape": [0, -1]}, (None, None)),
        ("reshape", {"shape": [0, 2, -1]}, (None, 2, None)),
        ("slice", {"starts": [0] * 3, "stops": [1] * 3, "steps": [1] * 3}, (None, None, None)),
        ("pad", {"before": [1] * 3, "after": [1] * 3, "value": 0.0}, (None, None, None)),
        ("concatenate", {"axis": 1}, (None, None, None)),
        ("reduce", {"function": "max", "axes": [1], "keepdims": True}, (None, 1, None)),
        ("unary", {"function": "exp", "a": 0, "b": 0, "c": 0}, (None, None, None)),
    ]:
        assert shapes.shapes(network_of(operation, [x], attributes))[-1] == expected
    image = network_of(
        "resize",
        [np.ones((1, 2, 2, 1))],
        {"interpolation": "nearest", "factors": [2, 2], "channels_first": True},
    )
    assert shapes.shapes(image)[-1] == (None,) * 4


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="do not fit each other"):
        shapes.broadcast((2, 3), (2,))
    attributes = {"axis": 1}
    with pytest.raises(ValueError, match="do not fit along the axis 1"):
        shapes.shapes(
            network_of("concatenate", [np.ones((2, 3)), np.ones((3, 3))], attributes, unknown=False)
        )
    with pytest.raises(ValueError, match="does not fit into"):
        shapes.shapes(network_of("reshape", [np.ones(7)], {"shape": [2, -1]}, unknown=False))


def test_errors():
    network = network_of("concatenate", [np.ones((2, 3))], {"axis": 1}, unknown=False)
    with pytest.raises(ValueError, match=r"takes 1 inputs: .'x0'.. Received: 2"):
        reference.run(network, 1, 2)
    with pytest.raises(ValueError, match=r"'x0' must have the shape \(2, 3\)"):
        reference.run(network, np.ones((3, 2)))
    with pytest.raises(ValueError, match="operation='odd'"):
        reference.run(network._replace(steps=[Step("odd", "s", [0])]), np.ones((2, 3)))


def test_results_have_the_networks_dtype():
    network = network_of("concatenate", [np.ones(2)], {"axis": 0})._replace(dtype="float32")
    (y,) = reference.run(network, np.array([1, 2**24 + 1]))
    assert y.dtype == np.float32
    assert y[1] == 2**24  # inputs are rounded to it, too
