"""A peer's process: what it is asked, and what of a peer's ways is not timed."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.benchmarks import SMALL

from sepconv.bench import cases, peers, worker
from sepconv.bench.workloads import MODES, WORKLOADS, Case


def three_builds(case, inputs, thorough):
    """A peer's builds, one of which is wrong and another fails."""
    answers = cases.make(case)[1]

    def right():
        return peers.BuiltCase(lambda: None, lambda _: answers)

    def wrong():
        return peers.BuiltCase(lambda: None, lambda _: {"y": 1.001 * answers["y"]})

    def failing():
        raise RuntimeError("no such kernel")

    return {"right": right, "wrong": wrong, "failing": failing}


def prepare(tmp_path, case, builds):
    """What a worker's process answers when a peer has these ways to run a case."""
    inputs, answers = cases.make(case)
    cases.save(tmp_path / "inputs", inputs)
    cases.save(tmp_path / "answers", answers)
    server = worker._Server(SimpleNamespace(builds=builds))
    return server, server.prepare(worker.encode(case), str(tmp_path), True)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
def test_a_case_survives_the_way_to_another_process(workload):
    case = Case(workload, 3, "separable-training", "bfloat16")
    assert worker.decode(json.loads(json.dumps(worker.encode(case)))) == case


def test_what_is_wrong_is_not_timed(tmp_path):
    server, answer = prepare(tmp_path, Case(SMALL, 1, "separable"), three_builds)
    assert answer["settings"] == ["right"]
    assert "off by" in answer["wrong"]["wrong"]
    assert "no such kernel" in answer["wrong"]["failing"]
    assert server.choose()["setting"] == "right"
    assert len(server.run(1, 3)["seconds"]) == 3


def test_what_takes_long_is_not_tried_in_every_way(monkeypatch, tmp_path):
    monkeypatch.setattr(worker, "_ENOUGH_SECONDS", 0.0)
    _, answer = prepare(tmp_path, Case(SMALL, 1, "separable"), three_builds)
    assert answer["settings"] == ["right"]
    assert {why[:9] for why in answer["wrong"].values()} == {"not tried"}


def test_an_output_that_is_missing_is_wrong(tmp_path):
    def builds(case, inputs, thorough):
        answers = cases.make(case)[1]
        return {"y alone": lambda: peers.BuiltCase(lambda: 0, lambda _: {"y": answers["y"]})}

    _, answer = prepare(tmp_path, Case(SMALL, 1, "separable-training"), builds)
    assert answer["settings"] == []
    assert "is missing" in answer["wrong"]["y alone"]


@pytest.mark.parametrize("mode", [mode for mode in MODES if "training" not in mode])
def test_a_layer_in_int8_is_right_and_computes_in_int8(mode):
    from sepconv.bench.peers import ours

    workload = next(w for w in WORKLOADS if w.name == "mobilenet_v3_large/9")
    case = Case(workload, 1, mode, "int8")
    inputs, answers = cases.make(case)
    (built,) = ours.Ours(1).builds(case, inputs, False).values()
    made = built()
    y = made.outputs(made.run())["y"]
    assert y.dtype == np.float32
    assert 0 < cases.relative_error(y, answers["y"]) < cases.TOLERANCES["int8"]
    kinds = [step.operation for step in ours.int8_network(case, inputs).steps]
    # Only a sum that is rounded or clamped is bytes before it is floats.
    rounded = mode.startswith("depthwise") or mode.endswith("relu6")
    last = ["quantized_convolution", "dequantize"] if rounded else ["dequantized_convolution"]
    assert kinds == ["quantize", *last]
