"""What a network must be: one made by hand is held against everything that a file's is."""

import numpy as np
import pytest
from helpers import programs

from sepconv.program.network import OPERATIONS, Input
from sepconv.program.validate import validate

NETWORK = programs.every_operation()
NETWORKS = (programs.quantized(), NETWORK)
#: A step of each kind: its network, and its number.
NUMBERS = {
    step.operation: (network, i) for network in NETWORKS for i, step in enumerate(network.steps)
}


def with_step(kind, /, **changes):
    """A network with another step of a kind; what is no part of a step is an attribute."""
    network, i = NUMBERS[kind]
    step = network.steps[i]
    parts = {name: changes.pop(name) for name in step._fields if name in changes}
    step = step._replace(attributes={**step.attributes, **changes})._replace(**parts)
    return network._replace(steps=(*network.steps[:i], step, *network.steps[i + 1 :]))


def test_the_networks_of_these_tests_have_every_operation_and_are_valid():
    assert NUMBERS.keys() == OPERATIONS.keys()
    for network in NETWORKS:
        validate(network)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_attribute_and_required_weight_must_be_there_and_of_its_type(operation):
    for field in OPERATIONS[operation].fields:
        network, i = NUMBERS[operation]
        attributes = dict(network.steps[i].attributes)
        del attributes[field.name]
        with pytest.raises(ValueError, match=f"attributes must have '{field.name}'"):
            validate(with_step(operation, attributes=attributes))
        for wrong in (None, "no such", (object(),), np.int64(1), float("nan"), -(2**53)):
            with pytest.raises(ValueError, match=f", {operation}\\): {field.name} must "):
                validate(with_step(operation, **{field.name: wrong}))
    weights = NUMBERS[operation][0].steps[NUMBERS[operation][1]].weights
    for part in OPERATIONS[operation].required:
        others = {name: tensor for name, tensor in weights.items() if name != part}
        with pytest.raises(ValueError, match=f"weights must have '{part}'"):
            validate(with_step(operation, weights=others))


def test_lists_are_tuples_or_lists():
    validate(with_step("transpose", permutation=[0, 3, 1, 2], inputs=[10]))
    validate(NETWORK._replace(outputs=list(NETWORK.outputs), tensors=list(NETWORK.tensors)))


def test_infinity_is_a_float_where_it_has_a_meaning():
    validate(with_step("pad", value=float("-inf")))
    validate(with_step("pad", value=0))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (None, "the network must be a sepconv.program.network.Network. Received: None"),
        (NETWORK._replace(dtype="float16"), "dtype must be 'float32' or 'float64'"),
        (NETWORK._replace(inputs=None), "inputs must be a list or a tuple"),
        (NETWORK._replace(inputs=[("x", (1,))]), r"inputs\[0\] must be an Input"),
        (NETWORK._replace(inputs=[Input("x" * 1025, (1,))]), "at most 1024 printable"),
        (NETWORK._replace(inputs=[Input("x", ())]), "shape must have 1 to 8 elements"),
        (NETWORK._replace(inputs=[Input("x", (-1,))]), "shape must be an integer of at least 0"),
        (NETWORK._replace(inputs=[Input("x", (1,))] * 2), "inputs must be of different names"),
        (NETWORK._replace(tensors=[[1.0]] * 12), r"tensors\[0\] must be a NumPy array of float32"),
        (NETWORK._replace(tensors=[np.ones(3, "int64")] * 12), "of float32, float64.*int64"),
        (NETWORK._replace(tensors=[np.ones(3, ">f4")] * 12), "array of float32, float64"),
        (NETWORK._replace(tensors=[np.ones([1] * 9, "f4")]), "must have at most 8 axes"),
        (NETWORK._replace(steps=["relu"]), r"steps\[0\] must be a Step. Received: 'relu'"),
        (NETWORK._replace(outputs=(1,)), "output_names must have 1 elements. Received: 2"),
        (NETWORK._replace(outputs=(True, 1)), r"outputs\[0\] must be 0 to 20. Received: True"),
        (with_step("pad", operation="unpad"), r"\('the pad 0'\): operation must be one of"),
        (with_step("pad", inputs=(0, 0)), "inputs must have 1 elements. Received: 2"),
        (with_step("dense", inputs=(15, 16)), "inputs must be 0 to 15. Received: 16"),
        (with_step("dense", weights={"kernel": 10, "b\n": 1}), r"weights must be of kernel, bias"),
        (with_step("dense", weights={"kernel": True}), "kernel must be 0 to 11. Received: True"),
        (with_step("convolution", weights={}), "'depthwise_kernel' or 'pointwise_kernel'"),
        (
            with_step("convolution", weights={"pointwise_kernel": 2, "depthwise_bias": 1}),
            "must have 'depthwise_kernel' for 'depthwise_bias'",
        ),
        (with_step("convolution", spec=(1, 1, 1, 1, 1, 0, 1, 0, 0, 0)), "no pads of its own"),
        (with_step("pool", spec=(1, 1, 1, 1, 1, 0, 1, 0, 0, 0)), "no pads of its own"),
        (with_step("pool", spec=(0, 1, 1, 1, 1, 0, 0, 0, 0, 0)), "spec must be an integer of at"),
        (with_step("pool", spec=(1, 1, 1, 1, 2, 0, 0, 0, 0, 0)), "spec must be 0 to 1"),
        (with_step("pool", window=(0, 1)), "window must be an integer of at least 1"),
        (with_step("reduce", axes=(1, 1)), r"axes must differ. Received: \(1, 1\)"),
        (with_step("reduce", axes=(8,)), "axes must be 0 to 7. Received: 8"),
        (with_step("slice", steps=(1, 0, 1, 1)), "steps must be an integer of at least 1"),
        (with_step("slice", steps=(1,)), "starts, stops, steps must be of one length"),
        (with_step("transpose", permutation=(0, 1, 3)), "permutation must have every axis once"),
        (with_step("reshape", shape=(-1, -1)), "shape must have at most one -1"),
        (with_step("reshape", shape=(-2,)), "shape must be an integer of at least -1"),
        (with_step("layer_normalization", epsilon=-1.0), "epsilon must be finite and not negative"),
        (with_step("layer_normalization", axes=0), "axes must be 1 to 8. Received: 0"),
    ],
)
def test_what_is_wrong_is_named(network, message):
    with pytest.raises(ValueError, match=message):
        validate(network)


def test_counts_are_bounded():
    many = NETWORK.steps[:1] * 40000
    with pytest.raises(ValueError, match="steps must have 0 to 32768 elements"):
        validate(NETWORK._replace(steps=many))
    with pytest.raises(ValueError, match="tensors must have 0 to 65536 elements"):
        validate(NETWORK._replace(tensors=NETWORK.tensors * 6000))


def test_what_was_received_is_cut_to_a_line():
    with pytest.raises(ValueError) as error:
        validate(with_step("pad", before="x" * 10**6))
    assert len(str(error.value)) < 200
