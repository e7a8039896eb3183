"""What docs/numerics.md says of numbers and functions, and calls on any arrays, for NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import hostile, hostile_engines
from helpers.configurations import configurations
from hypothesis import HealthCheck, given, seed, settings

import sepconv
from sepconv import reference
from sepconv.program.network import Input, Network, Step
from sepconv.program.program import Program

ENGINE = hostile_engines.numpy_engine()
MANY = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@pytest.mark.parametrize("chunk", range(8))
@pytest.mark.parametrize("special", ["x", "depthwise_kernel", "dy"])
def test_non_finite_numbers_propagate_as_in_the_reference(chunk, special):
    for c in configurations(15, seed=5000 + chunk):
        kind = "depthwise" if c.filters is None else "separable"
        arrays = c.arrays()
        if special != "dy":
            arrays[special] = hostile.sprinkle(
                arrays[special], hostile.NUMBERS["nonfinite"], c.seed
            )
        kernels = [a for name, a in arrays.items() if name != "bias"]
        with np.errstate(all="ignore"):
            y = getattr(sepconv, f"{kind}_conv2d")(
                *arrays.values(), activation=c.activation, **c.options
            )
            expected = getattr(reference, f"{kind}_conv2d")(
                *arrays.values(), activation=c.activation, **c.options
            )
            hostile.assert_like_reference(y, expected, c.dtype, c)
            dy = c.gradient(y.shape)
            if special == "dy":
                dy = hostile.sprinkle(dy, hostile.NUMBERS["nonfinite"], c.seed)
            grads = getattr(sepconv, f"{kind}_conv2d_grad")(*kernels, dy, **c.options)
            others = getattr(reference, f"{kind}_conv2d_grad")(*kernels, dy, **c.options)
            for name, grad, other in zip(grads._fields, grads, others, strict=True):
                hostile.assert_like_reference(grad, other, c.dtype, (name, c))


@pytest.mark.parametrize("channels", [1, 3, 16, 40])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_an_infinite_weight_on_padding_adds_nothing(channels, data_format):
    x = np.ones((1, 4, 4, channels), "float32")
    kernel = np.ones((3, 3, channels, 1), "float32")
    kernel[0, 0] = np.inf
    if data_format == "channels_first":
        x = np.moveaxis(x, 3, 1).copy()
    y = sepconv.depthwise_conv2d(x, kernel, padding="same", data_format=data_format)
    y = y if data_format == "channels_last" else np.moveaxis(y, 1, 3)
    assert np.array_equal(y[0, 0, :, 0], [4, 6, 6, 4])
    assert np.array_equal(y[0, 1:, 0, 0], [6, 6, 4])
    assert np.isposinf(y[:, 1:, 1:]).all()


def test_an_infinite_pixel_stays_out_of_taps_that_never_see_it():
    for data_format in ("channels_last", "channels_first"):
        x = np.ones((1, 5, 5, 1), "float32")
        x[0, 0, 4] = np.inf  # a corner, which the last tap of the first row alone sees
        x = np.moveaxis(x, 3, 1).copy() if data_format == "channels_first" else x
        dy = np.ones((1, 1, 3, 3) if data_format == "channels_first" else (1, 3, 3, 1), "float32")
        kernel = np.ones((3, 3, 1, 1), "float32")
        grads = sepconv.depthwise_conv2d_grad(x, kernel, dy, data_format=data_format)
        expected = np.full((3, 3), 9.0)
        expected[0, 2] = np.inf
        assert np.array_equal(grads.depthwise_kernel[:, :, 0, 0], expected)


@seed(1)
@settings(max_examples=300, **MANY)
@given(hostile.valid_calls(ENGINE.dtypes))
def test_arrays_of_any_memory(call):
    hostile.check_valid(ENGINE, call)


@seed(1)
@settings(max_examples=300, **MANY)
@given(hostile.arbitrary_calls())
def test_calls_that_make_no_sense(call):
    hostile.check_arbitrary(ENGINE, call)


def _program(function: str, a: float = 0.0) -> Program:
    numbers = {"function": function, "a": a, "b": 0.0, "c": 0.0}
    step = Step("unary", function, (0,), numbers)
    return Program(Network("float32", [Input("x", (None,))], [step], [1], ["y"], []))


_ALPHA = 1.6732632423543772  # of selu


@pytest.mark.parametrize(
    ("function", "exact", "bound"),
    [
        ("exp", np.exp, 1e-7),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x)), 2e-7),
        ("silu", lambda x: x / (1 + np.exp(-x)), 2e-7),
        ("tanh", np.tanh, 2e-7),
        ("softplus", lambda x: np.logaddexp(0, x), 2e-7),
        ("elu", lambda x: np.where(x < 0, np.expm1(x), x), 2e-7),
        ("selu", lambda x: 1.0507009873554805 * np.where(x < 0, _ALPHA * np.expm1(x), x), 2e-7),
        ("erf", np.vectorize(math.erf), 1e-7),
        ("mish", lambda x: x * np.tanh(np.logaddexp(0, x)), 3e-7),
    ],
)
def test_functions_of_programs_are_as_near_as_it_says(function, exact, bound):
    x = np.concatenate([np.linspace(-80, 80, 100_001), np.linspace(-2, 2, 50_001)])
    x = x.astype("float32")
    expected = exact(x.astype("float64"))
    y = _program(function, 1.0 if function == "elu" else 0.0)(x)
    assert (np.abs(y - expected) <= bound * np.abs(expected)).all()


def test_silu_of_a_convolution_is_as_near_as_it_says():
    x = (
        np.concatenate([np.linspace(-80, 80, 32_000), np.linspace(-20, 20, 32_000)])
        .astype("float32")
        .reshape(1, 50, 80, 16)
    )
    y = sepconv.prepare_conv2d(np.ones((1, 1, 16, 1), "float32"), activation="silu")(x)
    expected = x / (1 + np.exp(-x.astype("float64")))
    assert (np.abs(y - expected) <= 2.5e-7 * np.abs(expected)).all()


def test_denormal_numbers_are_zeros_in_programs_and_nowhere_else():
    tiny = np.array([1e-40, -1e-40, 2e-38], "float32")
    np.testing.assert_array_equal(_program("linear", 1.0)(tiny), [0, 0, tiny[2]])
    np.testing.assert_array_equal(_program("linear", 0.25)(tiny), [0, 0, 0])
    ones = np.ones((1, 1, 1, 1), "float32")
    x = tiny.reshape(1, 1, 3, 1)
    np.testing.assert_array_equal(sepconv.depthwise_conv2d(x, ones), x)
