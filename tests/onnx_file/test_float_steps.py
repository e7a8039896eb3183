"""Steps of floats as ONNX, run by ONNX Runtime and held against their reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from helpers import onnx_files, programs

from sepconv.geometry import conv_spec
from sepconv.onnx_file.write import model_of
from sepconv.program import reference
from sepconv.program.network import BINARY, UNARY, Input, Network, Step

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

_NUMBERS = {
    "relu": (0.1, 3.0, 0.5),
    "elu": (1.5, 0.0, 0.0),
    "celu": (1.5, 0.0, 0.0),
    "clip": (-0.5, 1.0, 0.0),
    "linear": (2.0, -1.0, 0.0),
    "soft_shrink": (0.5, 0.0, 0.0),
    "hard_shrink": (0.5, 0.0, 0.0),
    "threshold": (0.3, -2.0, 0.0),
    "squareplus": (4.0, 0.0, 0.0),
}


def _agrees(network: Network, *inputs: np.ndarray) -> None:
    expected = reference.run(network, *inputs)
    found = onnx_files.run(onnx_files.checked(network), *inputs)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5, err_msg=network.steps[0].name)


def _unary(function: str, a: float, b: float, c: float, x: int = 0) -> Step:
    return Step(
        "unary", f"{function} {a} {b}", (x,), {"function": function, "a": a, "b": b, "c": c}
    )


def test_every_operation_of_floats() -> None:
    network = programs.without_casts(programs.every_operation())
    _agrees(network, np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32))


def test_every_function_of_one_array() -> None:
    draw = np.random.default_rng(1)
    x = np.concatenate([draw.uniform(0.05, 4, 30), draw.uniform(-4, 4, 40), np.arange(-3, 4) / 2])
    positive = {"log", "sqrt", "rsqrt"}
    steps = [_unary(name, *_NUMBERS.get(name, (0.0, math.inf, 0.0))) for name in UNARY]
    steps += [_unary("relu", 0.1, math.inf, 0.0), _unary("relu", 0.0, 6.0, 0.0)]
    for wanted, numbers in ((True, np.abs(x) + 0.05), (False, x)):
        chosen = [s for s in steps if (s.attributes["function"] in positive) == wanted]
        names = [step.name for step in chosen]
        network = Network(
            "float32", [Input("x", (None,))], chosen, list(range(1, len(chosen) + 1)), names, []
        )
        _agrees(network, numbers.astype(np.float32))


def test_every_function_of_two_arrays() -> None:
    draw = np.random.default_rng(2)
    a, b = (draw.uniform(0.5, 2, shape).astype(np.float32) for shape in ((2, 3, 4, 5), (5,)))
    steps = [Step("binary", name, (0, 1), {"function": name}) for name in BINARY]
    inputs = [Input("a", (None, 3, 4, 5)), Input("b", (5,))]
    outputs = list(range(2, 2 + len(steps)))
    _agrees(Network("float32", inputs, steps, outputs, list(BINARY), []), a, b)


@pytest.mark.parametrize("first", [False, True], ids=["channels last", "channels first"])
def test_windows_and_what_lies_between(first: bool) -> None:
    """Strides, pads of two kinds, resizes and means, in either order of axes."""
    layout = "channels_first" if first else "channels_last"
    draw, axis = np.random.default_rng(3), 1 if first else 3
    tensors = [
        draw.standard_normal(shape).astype(np.float32)
        for shape in ((3, 2, 4, 2), (8,), (2, 3, 8, 6), (6,), (6,))
    ]

    def spec(*arguments: Any) -> tuple[int, ...]:
        return tuple(conv_spec(*arguments, data_format=layout))

    plain = {"depthwise_activation": "none", "activation": "silu"}
    window = {"window": (3, 2)}
    upward = {"factors": (2, 3), "channels_first": first}
    space = (2, 3) if first else (1, 2)
    mean = {"axes": space, "keepdims": True}
    steps = [
        Step(
            "convolution",
            "depthwise",
            (0,),
            {"spec": spec(2, "same"), **plain},
            {"depthwise_kernel": 0, "bias": 1},
        ),
        Step(
            "convolution",
            "ordinary",
            (1,),
            {"spec": spec(1, ((1, 0), (2, 1)), 2), **plain},
            {"pointwise_kernel": 2},
        ),
        Step("scale", "scale", (2,), {"axis": axis}, {"scale": 3, "shift": 4}),
        Step("pool", "largest", (3,), {"function": "max", **window, "spec": spec(1, "same", 2)}),
        Step("pool", "mean", (3,), {"function": "average", **window, "spec": spec(2, "same")}),
        Step("resize", "nearest", (5,), {"interpolation": "nearest", **upward}),
        Step("resize", "bilinear", (5,), {"interpolation": "bilinear", **upward}),
        Step("reduce", "global", (4,), {"function": "mean", **mean}),
        Step("binary", "gated", (4, 8), {"function": "multiply"}),
        Step("reduce", "sum", (9,), {"function": "sum", "axes": (1,), "keepdims": False}),
        Step("reduce", "max", (9,), {"function": "max", "axes": (2, 3), "keepdims": True}),
        Step("softmax", "log", (9,), {"axis": 3, "logarithm": True}),
    ]
    shape = (4, 13, 12) if first else (13, 12, 4)
    outputs = [6, 7, 9, 10, 11, 12]
    names = [f"y{value}" for value in outputs]
    network = Network("float32", [Input("x", (None, *shape))], steps, outputs, names, tensors)
    _agrees(network, draw.standard_normal((2, *shape)).astype(np.float32))


def test_open_sizes_are_open() -> None:
    step = Step(
        "convolution",
        "conv",
        (0,),
        {
            "spec": tuple(conv_spec(2, "same")),
            "depthwise_activation": "none",
            "activation": "relu6",
        },
        {"pointwise_kernel": 0},
    )
    kernel = np.random.default_rng(4).standard_normal((3, 3, 2, 4)).astype(np.float32)
    network = Network("float32", [Input("x", (None, None, None, 2))], [step], [1], ["y"], [kernel])
    for size in (7, 8):
        _agrees(network, np.ones((1, size, size + 1, 2), np.float32))


def test_names_are_those_of_the_network() -> None:
    step = _unary("sigmoid", 0.0, 0.0, 0.0)._replace(name="y")
    network = Network("float32", [Input("x", (None, 3))], [step], [1, 1, 0], ["y", "y", "x"], [])
    graph = model_of(network).graph
    assert [entry.name for entry in graph.input] == ["x"]
    assert [entry.name for entry in graph.output] == ["y", "y_2", "x_2"]
    _agrees(network, np.ones((2, 3), np.float32))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            Step("cast", "narrow", (0,), {"dtype": "bfloat16"}),
            r"'narrow' \(cast\) cannot be written as ONNX: there is no cast",
        ),
        (
            Step(
                "pool",
                "wide",
                (0,),
                {
                    "function": "average",
                    "window": (2, 2),
                    "spec": tuple(conv_spec(1, "valid", 2)),
                },
            ),
            r"'wide' \(pool\) cannot be written as ONNX: .* with dilation",
        ),
        (
            Step("layer_normalization", "norm", (0,), {"axes": 4, "epsilon": 1e-3}),
            r"'norm' .* sizes that are open",
        ),
    ],
)
def test_what_has_no_form_is_named(step: Step, message: str) -> None:
    network = Network("float32", [Input("x", (None, 8, 8, 2))], [step], [0], ["y"], [])
    with pytest.raises(ValueError, match=message):
        model_of(network)
