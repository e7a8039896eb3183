"""Which function a table is of."""

from __future__ import annotations

import numpy as np
import pytest

from sepconv.onnx_file.tables import FUNCTIONS, function_of_table, rounding_of_table
from sepconv.quantization.forms import function_of, table_of
from sepconv.quantization.origin import Rounding
from sepconv.quantization.ranges import Scale

_SINE = FUNCTIONS["the same"]._replace(attributes={"function": "sin", "a": 0, "b": 0, "c": 0})
TABLE = table_of(Scale(0.05, 120), Scale(0.03, 100), function_of(_SINE))


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ("exp", "sqrt")])
def test_functions_are_found(name: str) -> None:
    source, target = Scale(0.05, 120), Scale(0.03, 100)
    table = table_of(source, target, function_of(FUNCTIONS[name]))
    if table is None:  # infinite somewhere
        return
    rounding = rounding_of_table(table, source, target.scale)
    step = function_of_table(table, rounding)
    assert step is not None
    again = table_of(source, rounding.result, function_of(step))
    np.testing.assert_array_equal(again, table)


def test_the_zero_point_is_found() -> None:
    source = Scale(0.05, 120)
    for point in (0, 7, 255):
        table = table_of(source, Scale(0.03, point), function_of(FUNCTIONS["silu"]))
        assert table is not None
        found = rounding_of_table(table, source, 0.03)
        assert found == Rounding(source, Scale(0.03, point), None, FUNCTIONS["silu"].attributes)


def test_another_table_has_no_function() -> None:
    draw = np.random.default_rng(0)
    table = draw.integers(0, 256, 256).astype(np.uint8)
    source = Scale(0.05, 120)
    nothing = rounding_of_table(table, source, 0.03)
    assert nothing == Rounding(source, Scale(0.03, 0))
    assert function_of_table(table, nothing) is None
    # Nor has one of another scale.
    near = table_of(source, Scale(0.03, 10), function_of(FUNCTIONS["silu"]))
    assert near is not None
    assert rounding_of_table(near, source, 0.04).function is None


def test_the_function_that_a_rounding_names_is_held_against_the_table() -> None:
    source, target = Scale(0.05, 120), Scale(0.03, 100)
    named = {"function": "sin", "a": 0.0, "b": 0.0, "c": 0.0}
    rounding = Rounding(source, target, function=named)
    assert rounding_of_table(TABLE, source, target.scale).function is None  # it is not looked for
    found = function_of_table(TABLE, rounding)
    assert found is not None
    assert found.attributes == named
    other = TABLE.copy()
    other[7] += 1
    assert function_of_table(other, rounding) is None
    cosine = rounding._replace(function={**named, "function": "cos"})
    assert function_of_table(TABLE, cosine) is None


def test_what_jumps_elsewhere_in_float32_has_no_function() -> None:
    # Ten times 0.7 as float32 is below 7 until it is rounded to float32.
    source, target = Scale(float(np.float32(0.7)), 0), Scale(0.125, 0)
    rounding = Rounding(source, target, function={"function": "floor", "a": 0, "b": 0, "c": 0})
    step = FUNCTIONS["the same"]._replace(attributes=rounding.function)
    table = table_of(source, target, function_of(step))
    assert table is not None
    assert function_of_table(table, rounding) is None
