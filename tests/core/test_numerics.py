"""What docs/numerics.md says of NaN and infinities, and calls on arrays of any kind, for NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import hostile, hostile_engines
from helpers.configurations import configurations
from hypothesis import HealthCheck, given, seed, settings

import sepconv
from sepconv import reference

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
