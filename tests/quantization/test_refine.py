"""Ranges by what they do to the outputs."""

from __future__ import annotations

import numpy as np

from sepconv.program.network import Input, Network, Step
from sepconv.quantization.atoms import split
from sepconv.quantization.observe import batches_of, observe
from sepconv.quantization.refine import refined
from sepconv.quantization.scales import channel_axes, scales_of

_CLIP = {"function": "clip", "b": 1.0, "a": 0.0, "c": 0.0}
_LINEAR = {"function": "linear", "a": 2.0, "b": 0.0, "c": 0.0}


def _network(*functions: dict[str, object]) -> Network:
    steps = [Step("unary", f"step {i}", [i], given) for i, given in enumerate(functions)]
    outputs = [len(functions)]
    return Network("float32", [Input("x", (None, 64))], steps, outputs, ["y"], [])


def test_what_the_rest_clamps_needs_no_range() -> None:
    """Large numbers that a clip makes 1 of: a range of a quarter of them costs nothing."""
    draw = np.random.default_rng(0)
    x = np.abs(draw.standard_normal((16, 64)).astype("float32")) * 4
    atoms = split(_network(_LINEAR, _CLIP, _LINEAR))
    seen = observe(atoms.network, [x], channel_axes(atoms.network))
    before = scales_of(atoms, seen)
    after = refined(atoms, seen, before, [x], atoms.network.outputs)
    first = len(atoms.network.inputs)
    assert after[first].scale < 0.5 * float(seen[first].histogram.greatest) / 255
    assert after[-1] == before[-1]  # the output itself stays as it is


def test_values_that_are_named_stay() -> None:
    x = np.random.default_rng(0).standard_normal((8, 64)).astype("float32")
    atoms = split(_network(_LINEAR, _CLIP))
    seen = observe(atoms.network, [x], channel_axes(atoms.network))
    before = scales_of(atoms, seen)
    everything = range(len(before))
    assert refined(atoms, seen, before, [x], atoms.network.outputs, everything) == list(before)


def test_late_values_are_judged_by_more_examples() -> None:
    """Large numbers that the first batch has not: the last value's range is for them."""
    draw = np.random.default_rng(0)
    x = draw.uniform(-1, 1, (128, 64)).astype("float32")
    x[64:] *= 8
    same = {"function": "linear", "a": 1.0, "b": 0.0, "c": 0.0}
    atoms = split(_network(*[same] * 6))
    seen = observe(atoms.network, [x], channel_axes(atoms.network))
    assert [len(batch[0]) for batch in batches_of(atoms.network, [x])] == [64, 64]
    after = refined(atoms, seen, scales_of(atoms, seen), [x], atoms.network.outputs)
    first = len(atoms.network.inputs)
    early, late = after[first].scale, after[first + 4].scale
    assert early < 0.5 * late
