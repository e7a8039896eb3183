"""The scales of values of bytes: those that steps say, and those that follow."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import programs

from sepconv.onnx_file.scales import rounding_scale, scales_of
from sepconv.program.network import Input, Network, Step


def _network(*steps: Step, tensors: list[np.ndarray] | None = None) -> Network:
    return Network("float32", [Input("x", (None, 4))], steps, [0], ["y"], tensors or [])


def _quantize(multiplier: float) -> Step:
    return Step("quantize", "begin", (0,), {"multiplier": multiplier, "zero_point": 0})


def _binary(function: str, a: int, b: int, a_scale: float, b_scale: float = 1.0) -> Step:
    points = {"a_zero_point": 0, "b_zero_point": 0, "output_zero_point": 0}
    bounds = {"lower": 0, "upper": 255}
    scales = {"a_scale": a_scale, "b_scale": b_scale}
    return Step(
        "quantized_binary", function, (a, b), {"function": function, **points, **bounds} | scales
    )


def _lookup(x: int, **weights: int) -> Step:
    return Step("lookup", "table", (x,), {}, {"table": 0, **weights})


TABLE = np.arange(256).astype(np.uint8)


def test_scales_follow_sums_and_products() -> None:
    add, multiply = _binary("add", 1, 2, 0.5, 0.25), _binary("multiply", 1, 3, 0.125)
    found = scales_of(_network(_quantize(4.0), _lookup(1), add, multiply, tensors=[TABLE]))
    # 1 is 0.25; 3 is 0.25 / 0.5; 2 is 0.25 of that; 4 is 0.25 * 0.5 / 0.125.
    assert found == pytest.approx({1: 0.25, 2: 0.125, 3: 0.5, 4: 1.0})


def test_a_unit_says_the_scale() -> None:
    unit = np.float32([0.75])
    found = scales_of(_network(_quantize(4.0), _lookup(1, unit=1), tensors=[TABLE, unit]))
    assert found == {1: 0.25, 2: 0.75}


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
    first, separable, *_ = (s for s in network.steps if s.operation == "quantized_convolution")
    assert rounding_scale(network, first, "", 0.5) == (0.5, 0.5)
    # Its sums are of the residual's scale by the ratio, and a table follows; what lies between its
    # parts is of any scale.
    ratio = separable.attributes["residual_scale"]
    assert rounding_scale(network, separable, "", 2.0, 0.5) == (pytest.approx(0.5 / ratio), 2.0)
    assert rounding_scale(network, separable, "depthwise_", 2.0, 0.5) == (1.0, 1.0)
    units = [np.float32([0.1, 0.2]), np.float32([0.3, 0.4])]
    count = len(network.tensors)
    weights = {**separable.weights, "unit": count, "depthwise_unit": count + 1}
    network = network._replace(tensors=(*network.tensors, *units))
    said = separable._replace(weights=weights)
    assert rounding_scale(network, said, "", 2.0, 0.5) == (pytest.approx(0.1), 2.0)
    assert rounding_scale(network, said, "depthwise_", 2.0) == pytest.approx((0.3, 0.4))


def test_a_mean_over_open_sizes_is_refused() -> None:
    given = {"axes": (0,), "keepdims": False, "input_zero_point": 0, "scale": 0.5}
    mean = Step("quantized_mean", "the mean", (1,), {**given, "output_zero_point": 0})
    with pytest.raises(ValueError, match=r"'the mean'.*sizes that are open"):
        scales_of(_network(_quantize(2.0), mean))
