"""Networks of bfloat16: which steps and tensors become it, and what they compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import programs

from sepconv.program import reference
from sepconv.program.building.narrow import narrowed
from sepconv.program.building.simplify import simplify
from sepconv.program.dtypes import as_bfloat16, value_dtypes
from sepconv.program.network import Input, Network, Step
from sepconv.program.program import Program
from sepconv.program.validate import validate

_LINEAR: dict[str, Any] = {"function": "linear", "a": 2.0, "b": 0.5, "c": 0.0}
_POINTWISE = {
    "spec": (1, 1, 1, 1, 0, 0, 0, 0, 0, 0),
    "depthwise_activation": "none",
    "activation": "none",
}


def _tensors(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.standard_normal(shape).astype("float32") for shape in shapes]


def _classifier() -> Network:
    """A 1x1 convolution, a scale, a mean, a dense layer and what is left at the end."""
    steps = [
        Step("convolution", "mix", [0], _POINTWISE, {"pointwise_kernel": 0}),
        Step("scale", "scale", [1], {"axis": 3}, {"scale": 1}),
        Step("reduce", "mean", [2], {"function": "mean", "axes": [1, 2], "keepdims": False}),
        Step("dense", "dense", [3], {"activation": "none"}, {"kernel": 2, "bias": 3}),
        Step("unary", "temper", [4], _LINEAR),
        Step("softmax", "classes", [5], {"axis": 1, "logarithm": False}),
    ]
    tensors = _tensors((1, 1, 4, 8), (8,), (8, 3), (3,))
    inputs = [Input("x", (None, 5, 5, 4))]
    return Network("float32", inputs, steps, [6, 1], ["classes", "mixed"], tensors)


def test_images_are_bfloat16_and_vectors_at_the_end_are_not() -> None:
    network = narrowed(_classifier())
    validate(network)
    kinds = [step.operation for step in network.steps]
    assert list(zip(kinds, value_dtypes(network)[1:], strict=True)) == [
        ("cast", "bfloat16"),
        ("convolution", "bfloat16"),
        ("scale", "bfloat16"),
        ("reduce", "bfloat16"),
        ("dense", "bfloat16"),
        ("cast", "float32"),
        ("unary", "float32"),
        ("softmax", "float32"),
        ("cast", "float32"),
    ]
    assert [network.steps[i - 1].operation for i in network.outputs] == ["softmax", "cast"]


def test_weights_of_products_are_rounded_and_numbers_a_channel_are_not() -> None:
    old, new = _classifier(), narrowed(_classifier())
    kinds = [tensor.dtype.name for tensor in new.tensors]
    assert kinds == ["uint16", "float32", "uint16", "uint16"]
    np.testing.assert_array_equal(new.tensors[0], as_bfloat16(old.tensors[0]))
    np.testing.assert_array_equal(new.tensors[1], old.tensors[1])


def test_named_steps_stay_float32() -> None:
    network = narrowed(_classifier(), wide={"dense"})
    dense = next(step for step in network.steps if step.operation == "dense")
    assert network.tensors[dense.weights["kernel"]].dtype == np.float32
    assert value_dtypes(network)[dense.inputs[0]] == "float32"


def test_networks_are_simplified_before() -> None:
    with pytest.raises(ValueError, match=r"of float32 with values of bfloat16"):
        simplify(narrowed(_classifier()))


def test_a_constant_has_the_dtype_of_each_step_that_takes_it() -> None:
    add = {"function": "add"}
    steps = [
        Step("constant", "k", [], {}, {"value": 0}),
        Step("binary", "early", [0, 1], add),
        Step("dense", "dense", [2], {"activation": "none"}, {"kernel": 1}),
        Step("binary", "late", [3, 1], add),
        Step("binary", "twice", [4, 1], add),
    ]
    tensors = _tensors((4,), (4, 4))
    network = Network("float32", [Input("x", (None, 4))], steps, [5, 1], ["y", "k"], tensors)
    found = narrowed(network)
    validate(found)
    constants = [step for step in found.steps if step.operation == "constant"]
    assert [found.tensors[step.weights["value"]].dtype.name for step in constants] == [
        "uint16",
        "float32",
    ]
    x = np.ones((2, 4), "float32")
    for a, b in zip(reference.run(found, x), reference.run(network, x), strict=True):
        np.testing.assert_allclose(a, b, atol=0.1)
    np.testing.assert_array_equal(reference.run(found, x)[1], tensors[0])


def test_a_network_without_products_computes_in_bfloat16_where_it_has_images() -> None:
    steps = [Step("unary", "u", [0], _LINEAR)]
    image = Network("float32", [Input("x", (None, 2, 2, 3))], steps, [1], ["y"], [])
    assert [step.operation for step in narrowed(image).steps] == ["cast", "unary", "cast"]
    vector = image._replace(inputs=[Input("x", (None, 3))])
    assert narrowed(vector).steps == steps


@pytest.mark.parametrize("make", [programs.every_operation, programs.blocks, _classifier])
def test_they_compute_what_the_network_does(make: Any) -> None:
    network = make()
    if make is programs.every_operation:  # which has casts of its own
        network = network._replace(steps=network.steps[:-2], outputs=(18, 6))
    narrow = narrowed(network)
    shape = tuple(2 if size is None else size for size in network.inputs[0].shape)
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    found = Program(narrow)(x)
    expected = reference.run(narrow, x)
    exact = reference.run(network, x)
    for y, same, near in (
        zip(found, expected, exact, strict=True)
        if len(exact) > 1
        else [(found, expected[0], exact[0])]
    ):
        assert y.dtype == np.float32
        largest = np.abs(near).max()
        np.testing.assert_allclose(y, same, atol=2**-6 * largest)
        np.testing.assert_allclose(y, near, atol=0.05 * largest)
