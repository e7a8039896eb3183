"""Atoms compute what the whole network does, and every rounded value is one of theirs."""

import numpy as np
import pytest
from helpers import programs

from sepconv.program import reference
from sepconv.program.building.builder import Builder
from sepconv.program.network import ACTIVATIONS, Input
from sepconv.program.validate import validate
from sepconv.quantization.atoms import consumers, split


def test_every_operation_is_the_same():
    whole = programs.every_operation("float64")
    atoms = split(whole)
    validate(atoms.network)
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3))
    for a, b in zip(reference.run(whole, x), reference.run(atoms.network, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    names = [whole.steps[block].name for block in atoms.blocks]
    assert names == [step.name for step in atoms.network.steps]
    assert not any(
        {"depthwise_kernel", "pointwise_kernel"} <= step.weights.keys()
        for step in atoms.network.steps
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation):
    rng = np.random.default_rng(0)
    builder = Builder("float64", [Input("x", (None, 4)), Input("r", (None, 3))])
    weights = {"kernel": rng.standard_normal((4, 3)), "bias": rng.standard_normal(3)}
    y = builder.emit("dense", [0, 1], {"activation": activation}, weights)
    z = builder.emit("dense", [0], {"activation": activation}, weights)
    from sepconv.program.network import Network

    whole = Network("float64", builder.inputs, builder.steps, [y, z], ["y", "z"], builder.tensors)
    atoms = split(whole)
    x, r = rng.standard_normal((5, 4)) * 3, rng.standard_normal((5, 3))
    for a, b in zip(reference.run(whole, x, r), reference.run(atoms.network, x, r), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    apart = {"none": 0, "relu": 0, "relu6": 0}.get(activation, 1)
    assert atoms.blocks[-1 - apart :] == [1] * (1 + apart)


def test_consumers_count_every_use_and_the_outputs():
    builder = Builder("float32", [Input("x", (None, 4))])
    y = builder.binary("add", 0, 0)
    builder.unary(y, "square")
    from sepconv.program.network import Network

    network = Network("float32", builder.inputs, builder.steps, [y, 2], ["y", "z"], [])
    assert consumers(network) == [[0, 0], [1, -1], [-1]]
