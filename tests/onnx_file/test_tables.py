"""Which function a table is of."""

from __future__ import annotations

import numpy as np
import pytest

from sepconv.onnx_file.tables import FUNCTIONS, function_of_table
from sepconv.quantization.forms import function_of, table_of
from sepconv.quantization.ranges import Scale


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ("exp", "sqrt")])
def test_functions_are_found(name: str) -> None:
    source, target = Scale(0.05, 120), Scale(0.03, 100)
    table = table_of(source, target, function_of(FUNCTIONS[name]))
    if table is None:  # infinite somewhere
        return
    found = function_of_table(table, source, target.scale)
    assert found is not None
    step, scale = found
    again = table_of(source, scale, function_of(step))
    np.testing.assert_array_equal(again, table)


def test_the_zero_point_is_found() -> None:
    source = Scale(0.05, 120)
    for point in (0, 7, 255):
        table = table_of(source, Scale(0.03, point), function_of(FUNCTIONS["silu"]))
        assert table is not None
        found = function_of_table(table, source, 0.03)
        assert found == (FUNCTIONS["silu"], Scale(0.03, point))


def test_another_table_is_none() -> None:
    draw = np.random.default_rng(0)
    table = draw.integers(0, 256, 256).astype(np.uint8)
    assert function_of_table(table, Scale(0.05, 120), 0.03) is None
    # Nor one of another scale.
    near = table_of(Scale(0.05, 120), Scale(0.03, 10), function_of(FUNCTIONS["silu"]))
    assert near is not None
    assert function_of_table(near, Scale(0.05, 120), 0.04) is None
