"""How much a program of a half type may differ by its roundings."""

from __future__ import annotations

import numpy as np

from sepconv.geometry import conv_spec
from sepconv.program.comparing import changed_outputs, differences
from sepconv.program.dtypes import as_bfloat16, as_float64
from sepconv.program.network import Input, Network, Step
from sepconv.program.program import Program


def _product(weight: float) -> Program:
    """One product in bfloat16: each output is the sum of 4 inputs times a weight."""
    plain = {"depthwise_activation": "none", "activation": "none", "spec": conv_spec()}
    steps = [
        Step("cast", "narrow", (0,), {"dtype": "bfloat16"}),
        Step("convolution", "product", (1,), plain, {"pointwise_kernel": 0, "bias": 1}),
        Step("cast", "wide", (2,), {"dtype": "float32"}),
    ]
    kernel = as_bfloat16(np.full((1, 1, 4, 8), weight, "float32"))
    tensors = [kernel, as_bfloat16(np.zeros(8, "float32"))]
    return Program(Network("float32", [Input("x", (None, 1, 1, 4))], steps, [3], ["y"], tensors))


def test_weights_and_inputs_move_by_one_unit() -> None:
    program, x = _product(0.5), np.ones((1, 1, 1, 4), "float32")
    kernel = program.network.tensors[0].copy()
    [changed] = changed_outputs(program, [x], 2.0**-7)
    assert changed.shape == (1, 1, 1, 8)
    # Each product is off by up to a 64th, and their sum is rounded, too.
    apart = differences([np.asarray(program(x))], [changed])[0]
    assert 0 < apart <= 3 * 2.0**-7
    # Weights have moved, not in the program itself: outputs differ among each other.
    assert len(np.unique(changed)) > 1
    np.testing.assert_array_equal(program.network.tensors[0], kernel)


def test_zeros_and_the_largest_numbers_stay() -> None:
    [zeros] = changed_outputs(_product(0.0), [np.ones((1, 1, 1, 4), "float32")], 2.0**-7)
    assert not zeros.any()
    largest = float(as_float64(np.array([0x7F7F], np.uint16))[0])
    x = np.zeros((1, 1, 1, 4), "float32")
    x[..., 0] = 0.5
    [changed] = changed_outputs(_product(largest), [x], 2.0**-7)
    assert np.isfinite(changed).all()
