"""What bytes stand for where no note says it: what steps say, and what follows of that."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import programs

from sepconv.onnx_file.scales import origin_by_ratios, scales_of
from sepconv.onnx_file.tables import FUNCTIONS
from sepconv.program.network import Input, Network, Step
from sepconv.quantization.forms import function_of, table_of
from sepconv.quantization.origin import value_scales
from sepconv.quantization.ranges import Scale


def _network(*steps: Step, tensors: list[np.ndarray] | None = None) -> Network:
    return Network("float32", [Input("x", (None, 4))], steps, [0], ["y"], tensors or [])


def _quantize(multiplier: float, zero_point: int = 0) -> Step:
    given = {"multiplier": multiplier, "zero_point": zero_point}
    return Step("quantize", "begin", (0,), given)


def _binary(function: str, a: int, b: int, a_scale: float, b_scale: float = 1.0) -> Step:
    points = {"a_zero_point": 0, "b_zero_point": 0, "output_zero_point": 0}
    bounds = {"lower": 0, "upper": 255}
    scales = {"a_scale": a_scale, "b_scale": b_scale}
    return Step(
        "quantized_binary", function, (a, b), {"function": function, **points, **bounds} | scales
    )


def _lookup(x: int) -> Step:
    return Step("lookup", "table", (x,), {}, {"table": 0})


TABLE = np.arange(256).astype(np.uint8)


def test_scales_follow_sums_and_products() -> None:
    add, multiply = _binary("add", 1, 2, 0.5, 0.25), _binary("multiply", 1, 3, 0.125)
    found = scales_of(_network(_quantize(4.0), _lookup(1), add, multiply, tensors=[TABLE]))
    # 1 is 0.25; 3 is 0.25 / 0.5; 2 is 0.25 of that; 4 is 0.25 * 0.5 / 0.125.
    assert found == pytest.approx({1: 0.25, 2: 0.125, 3: 0.5, 4: 1.0})


def test_what_nothing_says_is_one() -> None:
    assert scales_of(_network(_quantize(2.0), _lookup(1), tensors=[TABLE])) == {1: 0.5, 2: 1.0}


def test_what_is_moved_has_the_scale_of_all_parts() -> None:
    joined = Step("concatenate", "joined", (1, 2), {"axis": 1})
    end = Step("dequantize", "end", (3,), {"scale": 0.5, "zero_point": 0})
    found = scales_of(_network(_quantize(2.0), _lookup(1), joined, end, tensors=[TABLE]))
    assert found == {1: 0.5, 2: 0.5, 3: 0.5}


def test_a_ratio_of_zero_says_nothing() -> None:
    add = _binary("add", 1, 1, 0.0, 0.0)
    assert scales_of(_network(_quantize(2.0), add)) == {1: 0.5, 2: 1.0}


def test_what_sums_are_rounded_to() -> None:
    network = programs.quantized()
    scales, origin = scales_of(network), origin_by_ratios(network)
    (i, _), (j, separable), *_ = (
        (i, step)
        for i, step in enumerate(network.steps)
        if step.operation == "quantized_convolution"
    )
    (first,) = origin[i]
    assert first.scale == first.result == Scale(scales[1 + i], 120)
    # Sums are of the residual's scale by the ratio, and a table follows; what lies between the two
    # parts is of any scale.
    middle, last = origin[j]
    assert (middle.scale, middle.result.scale) == (Scale(1.0, 90), 1.0)
    told = scales[separable.inputs[1]] / separable.attributes["residual_scale"]
    assert last.scale == Scale(pytest.approx(told), 120)
    assert last.result.scale == scales[1 + j]
    # Every step says what there is to say of bytes, and no other does.
    known = {i: each for i, each in enumerate(value_scales(network, origin)) if each is not None}
    assert {i: each.scale for i, each in known.items()} == scales


def test_a_table_says_its_function_and_zero_point() -> None:
    source, target = Scale(0.25, 100), Scale(0.5, 7)
    table = table_of(source, target, function_of(FUNCTIONS["silu"]))
    assert table is not None
    end = Step("dequantize", "end", (3,), {"scale": 0.5, "zero_point": 7})
    begin = _quantize(4.0, 100)
    moved = Step("reshape", "rows", (2,), {"shape": (0, 2, 2)})
    network = _network(begin, _lookup(1), moved, end, tensors=[table])
    _, (rounding,), *rest = origin_by_ratios(network)
    assert rest == [[], []]
    assert (rounding.scale, rounding.result) == (source, target)
    assert rounding.function == FUNCTIONS["silu"].attributes
    assert value_scales(network, origin_by_ratios(network))[3] == target


def test_constants_of_bytes_are_of_the_scale_of_what_they_meet() -> None:
    constant = Step("constant", "numbers", (), {}, {"value": 0})
    joined = Step("concatenate", "joined", (1, 2), {"axis": 0})
    network = _network(_quantize(4.0, 9), constant, joined, tensors=[np.zeros((1, 4), np.uint8)])
    _, (rounding,), _ = origin_by_ratios(network)
    assert rounding.result == Scale(0.25, 0)


def test_a_mean_over_open_sizes_is_refused() -> None:
    given = {"axes": (0,), "keepdims": False, "input_zero_point": 0, "scale": 0.5}
    mean = Step("quantized_mean", "the mean", (1,), {**given, "output_zero_point": 0})
    with pytest.raises(ValueError, match=r"'the mean'.*sizes that are open"):
        scales_of(_network(_quantize(2.0), mean))
