"""Calls on arrays of any memory and numbers, calls that make no sense, and NumPy's very bits."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import half, hostile, hostile_engines
from helpers.selection import selected
from hypothesis import HealthCheck, given, seed, settings


@pytest.fixture(params=selected())
def name(request):
    return request.param


@pytest.fixture
def engine(name):
    return hostile_engines.MAKERS[name]()


@pytest.fixture
def few(name):
    """Makes a test run the same few examples each time; fewer on JAX, which compiles each."""
    healthy = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
    chosen = settings(max_examples=25 if name == "jax" else 60, **healthy)
    return lambda test: seed(1)(chosen(test))


def test_arrays_of_any_memory(engine, few):
    @few
    @given(hostile.valid_calls(engine.dtypes))
    def holds(call):
        hostile.check_valid(engine, call)

    holds()


def test_calls_that_make_no_sense(engine, few):
    @few
    @given(hostile.arbitrary_calls())
    def holds(call):
        hostile.check_arbitrary(engine, call)

    holds()


@pytest.mark.skipif("bfloat16" not in half.HALF, reason="ml_dtypes gives NumPy bfloat16")
def test_products_and_normalization_of_half_types(name):
    engine = half.MAKERS[name]()
    for number in range(3 if name == "jax" else 20):
        half.check(engine, number)


@pytest.mark.parametrize("kind", ["depthwise", "separable"])
def test_no_images_of_a_size_that_no_memory_has(engine, kind):
    ones = np.ones((1, 1, 1, 1), "float32")
    arrays = {"x": np.zeros((0, 1, 1, 1), "float32"), "depthwise_kernel": ones}
    if kind == "separable":
        arrays["pointwise_kernel"] = ones
    y = engine.forward(kind, arrays, {"padding": ((0, 0), (0, 2**40))})
    assert y.shape == (0, 1, 2**40 + 1, 1)


def test_bits_are_those_of_numpy(engine):
    hostile_engines.check_same_bits(engine)
