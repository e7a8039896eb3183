"""Int8 steps of programs against their reference: equal bits, on random steps and networks."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import programs
from helpers.int8_steps import DRAWN, Drawn

import sepconv
from sepconv.program import quantized_reference, reference
from sepconv.program.network import QUANTIZED_OPERATIONS, Input, Network, Step
from sepconv.program.program import Program, Tuning


def test_every_step_is_tested() -> None:
    assert {*DRAWN, "quantize", "dequantize"} == QUANTIZED_OPERATIONS.keys()


@pytest.mark.parametrize("operation", DRAWN)
def test_step_is_the_references_to_the_bit(operation: str) -> None:
    count = 200 if operation.endswith(("convolution", "binary")) else 60
    compared = 0
    for seed in range(count):
        drawn = Drawn(seed)
        try:
            network = DRAWN[operation](drawn)
            (step,) = (step for step in network.steps if step.operation == operation)
            weights = {part: network.tensors[i] for part, i in step.weights.items()}
            expected = quantized_reference.compute(step, weights, drawn.inputs)
        except ValueError:
            continue  # a window that does not fit
        try:
            program = Program(network)
            found = program(*(x.astype(np.float32) for x in drawn.inputs))
        except ValueError as error:
            if "lies in the padding alone" not in str(error):
                raise
            continue
        np.testing.assert_array_equal(found, expected, strict=False, err_msg=str(seed))
        assert found.shape == expected.shape
        compared += 1
    assert compared > 0.7 * count


def test_numbers_become_bytes_as_the_reference_says() -> None:
    draw = np.random.default_rng(0)
    bits = draw.integers(0, 2**32, 3000, dtype=np.uint32).view(np.float32)
    halves = (np.arange(-300, 300) / 2).astype(np.float32)
    x = np.concatenate([bits, halves, np.float32([np.inf, -np.inf, np.nan, 0.0, -0.0])])
    for multiplier, zero_point in ((1.0, 7), (0.037, 0), (3e30, 255), (1e-30, 128)):
        step = Step("quantize", "begin", (0,), {"multiplier": multiplier, "zero_point": zero_point})
        back = Step("dequantize", "end", (1,), {"scale": 0.1, "zero_point": zero_point})
        network = Network("float32", [Input("x", (None,))], [step, back], [2], ["y"], [])
        (expected,) = reference.run(network, x)
        np.testing.assert_array_equal(Program(network)(x), expected)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_networks_are_the_references_whatever_the_tuning(threads: int) -> None:
    """Steps that go together by bands of rows, or a few images at a time, give the same bits."""
    network = programs.quantized()
    x = np.random.default_rng(1).standard_normal((5, 12, 10, 3)).astype(np.float32)
    expected = reference.run(network, x)
    assert all(len(np.unique(y)) > 5 for y in expected)
    before = sepconv.num_threads()
    sepconv.set_num_threads(threads)
    try:
        for tuning in (None, Tuning(0, 1024, 8), Tuning(0, 8192, 2), Tuning(-1, 1, 2)):
            found = Program(network, tuning=tuning)
            for y, wanted in zip(found(x), expected, strict=True):
                np.testing.assert_array_equal(y, wanted)
    finally:
        sepconv.set_num_threads(before)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("quantized_dense", {"bias": 2**31 - 1}, "must stay within int32"),
        ("quantized_dense", {"scale": np.inf}, "A scale must be finite"),
        ("quantized_convolution", {"scale": np.nan}, "A scale must be finite"),
    ],
)
def test_weights_that_cannot_be_computed_with_are_refused(
    kind: str, changes: dict[str, float], message: str
) -> None:
    network = programs.quantized()
    (step, *_) = (step for step in network.steps if step.operation == kind)
    tensors = list(network.tensors)
    for part, value in changes.items():
        changed = tensors[step.weights[part]].copy()
        changed[0] = value
        tensors[step.weights[part]] = changed
    with pytest.raises(ValueError, match=message):
        Program(network._replace(tensors=tensors))
