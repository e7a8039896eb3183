"""What an int8 network's bytes stand for: notes that are written, read and refused."""

import json
import math

import numpy as np
import pytest
from helpers import programs
from helpers.float_networks import Drawn, data, values

from sepconv.program import reference
from sepconv.program.network import Step
from sepconv.quantization.atoms import split
from sepconv.quantization.observe import observe
from sepconv.quantization.origin import NOTE, Rounding, origin_of, value_scales, write_origin
from sepconv.quantization.ranges import Scale
from sepconv.quantization.rewrite import rewrite
from sepconv.quantization.scales import channel_axes, scales_of


def quantized(network, x):
    atoms = split(network)
    seen = observe(atoms.network, [x], channel_axes(atoms.network))
    return rewrite(atoms, seen, scales_of(atoms, seen))


@pytest.fixture(scope="module")
def network():
    drawn = Drawn()
    y = drawn.separable(0, 8, middle="silu")
    y = drawn.concatenate([drawn.unary(y, "tanh"), drawn.reshape(y, [0, 10, 9, 8]), 0], 3)
    y = drawn.binary("subtract", drawn.ordinary(y, 6), drawn.ordinary(y, 6, activation="relu6"))
    return drawn.network(drawn.softmax(y, 3), drawn.reduce(y, "mean", [1, 2], True))


@pytest.fixture(scope="module")
def made(network):
    return quantized(network, data(network))


def test_every_value_has_its_scale(network, made):
    """Bytes times their scales are near the float network's values."""
    scales = value_scales(made.network, made.origin)
    computed = reference.values(made.network, data(network))
    expected = reference.values(split(network).network, data(network))
    known = {number: value for value, (number, scale) in made.values.items() if scale is not None}
    assert len(known) > 6
    for number, value in known.items():
        real = scales[number].real(computed[number].astype(np.uint8))
        wanted = expected[value]
        assert np.sqrt(np.mean((real - wanted) ** 2) / np.mean(wanted**2)) < 0.06
    kinds = ("softmax", "dequantize", "dequantized_convolution")
    floats = [step.operation in kinds for step in made.network.steps]
    assert [scale is None for scale in scales] == [True, *floats]


def test_a_table_that_changes_the_scale_alone_is_kept():
    """Else twice a number would be the same bytes, without a word of it."""
    drawn = Drawn()
    y = drawn.ordinary(drawn.unary(0, "linear", 2.0, 0.0), 6)
    network = drawn.network(y)
    made = quantized(network, data(network))
    assert [step.operation for step in made.network.steps][:2] == ["quantize", "lookup"]
    (rounding,) = made.origin[1]
    assert rounding.result.scale == pytest.approx(2 * rounding.scale.scale, rel=1e-6)
    found = values(made.network, [data(network)], made.network.outputs)
    expected = reference.run(network, data(network))[0]
    assert np.abs(found[made.network.outputs[0]] - expected).max() < 0.05 * expected.max()


def test_notes_are_read_as_they_were_written(made):
    notes = {NOTE: write_origin(made.origin), "other": "note"}
    found = origin_of(made.network, notes, "it")
    assert write_origin(found) == notes[NOTE]
    assert [[r.scale for r in each] for each in found] == [
        [r.scale for r in each] for each in made.origin
    ]
    clamps = {r.clamp for each in found for r in each}
    assert clamps == {None, (0.0, math.inf), (0.0, 6.0)}
    functions = {r.function["function"] for each in found for r in each if r.function}
    assert functions == {"silu", "tanh"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda steps: steps[:-1], "it is of"),
        (lambda steps: {"a": 1}, "does not fit"),
        (lambda steps: [[], *steps[1:]], "has other zero points than"),
        (lambda steps: [[*steps[0], *steps[0]], *steps[1:]], "has other zero points than"),
        (lambda steps: [[{**steps[0][0], "scale": [0.0, 3]}], *steps[1:]], "no scale of 0.0"),
        (lambda steps: [[{**steps[0][0], "scale": [1.0, 300]}], *steps[1:]], "zero point 300"),
        (lambda steps: [[{**steps[0][0], "scale": [1.0]}], *steps[1:]], "does not fit"),
        (
            lambda steps: [[{**steps[0][0], "function": ["eval", 0, 0, 0]}], *steps[1:]],
            "there is no function 'eval'",
        ),
    ],
)
def test_notes_that_do_not_fit_are_refused(made, change, message):
    steps = change(json.loads(write_origin(made.origin)))
    with pytest.raises(ValueError, match=message):
        origin_of(made.network, {NOTE: json.dumps(steps)}, "it")


def test_scales_that_steps_do_not_multiply_by_are_refused(made):
    """Each step that says a ratio finds out a note whose scale of it is another one."""
    found = set()
    for i, step in enumerate(made.network.steps):
        if not made.origin[i]:
            continue
        given = json.loads(write_origin(made.origin))
        for kind in ("scale", "result"):
            given[i][-1][kind][0] *= 1.01
        try:
            origin_of(made.network, {NOTE: json.dumps(given)}, "it")
        except ValueError as error:
            assert "multiplies by" in str(error)  # noqa: PT017
            found.add(step.operation)
    assert found == {
        step.operation for step, each in zip(made.network.steps, made.origin, strict=True) if each
    }


def test_a_network_without_the_note_is_refused(made):
    with pytest.raises(ValueError, match="it is not an int8 network of"):
        origin_of(made.network, {"tuning": "{}"}, "it")
    with pytest.raises(ValueError, match="does not fit its"):
        origin_of(made.network, {NOTE: "no JSON"}, "it")


def test_bytes_of_which_nothing_is_said_are_refused():
    network = programs.quantized()
    bare = Step("constant", "numbers", (), {}, {"value": 0})
    network = network._replace(steps=(bare,), tensors=(np.uint8([1]),), outputs=(0,))
    with pytest.raises(ValueError, match="nothing says what the bytes of the step 'numbers' are"):
        origin_of(network, {NOTE: "[[]]"}, "it")


def test_infinite_numbers_are_strict_json():
    text = write_origin([[Rounding(Scale(1.0, 0), Scale(1.0, 0), (-math.inf, math.inf))]])
    given = json.loads(text, parse_constant=pytest.fail)
    assert given[0][0]["clamp"] == ["-Infinity", "Infinity"]
