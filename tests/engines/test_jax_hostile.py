"""Calls on arrays of any memory and numbers, calls that make no sense, and NumPy's very bits."""

from __future__ import annotations

import hostile
import hostile_engines
from hypothesis import HealthCheck, given, seed, settings

ENGINE = hostile_engines.jax_engine()
FEW = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@seed(1)
@settings(max_examples=25, **FEW)
@given(hostile.valid_calls(ENGINE.dtypes))
def test_arrays_of_any_memory(call):
    hostile.check_valid(ENGINE, call)


@seed(1)
@settings(max_examples=25, **FEW)
@given(hostile.arbitrary_calls())
def test_calls_that_make_no_sense(call):
    hostile.check_arbitrary(ENGINE, call)


def test_bits_are_those_of_numpy():
    hostile_engines.check_same_bits(ENGINE)
