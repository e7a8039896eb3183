"""The benchmark: its tables of work and floors, its processes, and what it writes.

No time is asserted; what is run is tiny.
"""

import itertools
import json
import math
import os
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import numpy as np
import pytest

from sepconv import cli
from sepconv.bench import (
    bars,
    benchmark,
    cases,
    measure,
    peers,
    plot,
    report,
    roofline,
    worker,
    workloads,
)
from sepconv.bench.workloads import MODES, WORKLOADS, Case, Workload, select

SMALL = Workload("small/1", "nowhere", 6, 7, 4, (3, 3), strides=(2, 2), filters=5)
MULTIPLIED = Workload("small/2", "nowhere", 9, 5, 3, (5, 1), padding="valid", depth_multiplier=2)
MACHINE = roofline.Machine(
    2,
    100e9,
    (roofline.Level("L2", 1e6, 80e9), roofline.Level("memory", math.inf, 10e9)),
)


def three_builds(case, inputs, thorough):
    """A peer's builds, one of which is wrong and another fails."""
    answers = cases.make(case)[1]

    def right():
        return peers.Prepared(lambda: None, lambda _: answers)

    def wrong():
        return peers.Prepared(lambda: None, lambda _: {"y": 1.001 * answers["y"]})

    def failing():
        raise RuntimeError("no such kernel")

    return {"right": right, "wrong": wrong, "failing": failing}


def test_every_workload_is_named_once_and_has_its_source():
    names = [workload.name for workload in WORKLOADS]
    assert len(set(names)) == len(names)
    assert all("arXiv" in workload.source for workload in WORKLOADS)
    assert {*workloads.QUICK} <= {*names}
    for network, count in (("mobilenet_v1", 13), ("eegnet", 2), ("conv_tasnet", 8)):
        assert sum(name.startswith(network + "/") for name in names) == count


def test_sizes_follow_from_one_block_to_the_next():
    blocks = [w for w in WORKLOADS if w.name.startswith("mobilenet_v1/")]
    for block, following in itertools.pairwise(blocks):
        assert block.output_size == (following.height, following.width)
        assert block.filters == following.channels


def test_workloads_of_one_shape_are_measured_once():
    found = select("mobilenet_v1/7,mobilenet_v1/8", "separable", (1,))
    assert [case.workload.name for case in found] == ["mobilenet_v1/7"]
    # Alone, the depthwise layers of these two are the same; with their 1x1 convolutions not.
    pair = "efficientnet_b0/1a,mobilenet_v1/1"
    assert len(select(pair, "separable", (1,))) == 2
    assert len(select(pair, "depthwise", (1,))) == 1


def test_select_by_pattern():
    assert {case.mode for case in select("eegnet", "*-training")} == {
        "separable-training",
        "depthwise-training",
        "pointwise-training",
    }
    assert {case.batch for case in select("eegnet")} == {1, 32}
    assert {case.batch for case in select(quick=True)} == {1}
    assert select("resnet") == []


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
def test_a_case_survives_the_way_to_another_process(workload):
    case = Case(workload, 3, "separable-training")
    assert worker.decode(json.loads(json.dumps(worker.encode(case)))) == case


@pytest.mark.parametrize("workload", [SMALL, MULTIPLIED])
def test_work_counts_the_taps_that_lie_on_the_input(workload):
    from sepconv import reference

    ones = np.ones(workload.x_shape(2)), np.ones(workload.kernel_shape)
    options = {"strides": workload.strides, "padding": workload.padding}
    taps = reference.depthwise_conv2d(*ones, **options).sum()
    assert roofline.work(Case(workload, 2, "depthwise")) == 2 * taps
    assert roofline.work(Case(workload, 2, "depthwise-training")) == 6 * taps


def test_traffic_is_that_of_the_arrays():
    case = Case(SMALL, 2, "separable-training")
    inputs, answers = cases.make(case)
    x, y = inputs["x"].size, answers["y"].size
    weights = inputs["depthwise_kernel"].size + inputs["pointwise_kernel"].size
    assert roofline.traffic(case) == 4 * ((x + y + weights) + (2 * x + y + 3 * weights))
    assert roofline.traffic(case._replace(mode="separable")) == 4 * (x + y + weights)


def test_the_floor_is_the_dearer_of_operations_and_bytes():
    large = next(w for w in WORKLOADS if w.name == "mobilenet_v1/3")
    product = roofline.floor(Case(large, 8, "pointwise"), MACHINE)
    assert (product.bound, product.level) == ("operations", "memory")
    assert product.seconds == 2 * 8 * 56 * 56 * 128 * 128 / 100e9
    alone = roofline.floor(Case(large, 8, "depthwise"), MACHINE)
    assert alone.bound == "bytes"
    assert alone.seconds == alone.bytes / 10e9
    assert roofline.floor(Case(SMALL, 1, "depthwise"), MACHINE).level == "L2"


def test_the_machine_is_measured():
    machine = roofline.measure(1, 0.02)
    assert machine.peak > 1e8
    assert [level.name for level in machine.levels][-1] == "memory"
    assert all(level.bandwidth > 1e8 for level in machine.levels)
    sizes = [level.size for level in machine.levels]
    assert sizes == sorted(sizes)


def test_of_two_measurements_the_higher_limits_count():
    other = roofline.Machine(
        2, 90e9, (roofline.Level("L2", 1e6, 99e9), roofline.Level("memory", math.inf, 9e9))
    )
    best = MACHINE.best_of(other)
    assert best.peak == 100e9
    assert [level.bandwidth for level in best.levels] == [99e9, 10e9]


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("measure_fma", (0, 1.0), "threads must be from 1"),
        ("measure_fma", (1, 0.0), "seconds must be above 0"),
        ("measure_fma", (1, math.nan), "seconds must be above 0"),
        ("measure_bandwidth", (0, 1, 1.0), "bytes must be at least 1"),
    ],
)
def test_measuring_refuses_what_makes_no_sense(function, arguments, message):
    from sepconv import _native

    with pytest.raises(ValueError, match=message):
        getattr(_native, function)(*arguments)


@pytest.mark.parametrize("mode", MODES)
def test_answers_are_the_reference_s(mode):
    from sepconv import reference

    case = Case(SMALL, 2, mode)
    inputs, answers = cases.make(case)
    assert case.training == ("dx" in answers)
    if case.operation == "pointwise":
        expected = inputs["x"].astype(float) @ inputs["pointwise_kernel"].astype(float)
    else:
        arrays = [inputs["x"], inputs["depthwise_kernel"]]
        function = reference.depthwise_conv2d
        if case.operation == "separable":
            arrays.append(inputs["pointwise_kernel"][None, None])
            function = reference.separable_conv2d
        activation = "relu6" if case.epilogue else None
        options = {"strides": 2, "padding": "same", "activation": activation}
        expected = function(*arrays, inputs.get("bias"), **options)
    np.testing.assert_allclose(answers["y"], expected, rtol=1e-12, atol=1e-12)


def test_gradients_of_the_answers_are_differences():
    case = Case(SMALL, 1, "separable-training+relu6")
    inputs, answers = cases.make(case)
    from sepconv import reference

    def loss(**changed):
        a = {name: array.astype(float) for name, array in (inputs | changed).items()}
        kernels = a["depthwise_kernel"], a["pointwise_kernel"][None, None]
        options = {"strides": 2, "padding": "same", "activation": "relu6"}
        y = reference.separable_conv2d(a["x"], *kernels, a["bias"], **options)
        return (y * a["dy"]).sum()

    rng = np.random.default_rng(0)
    for name in ("x", "depthwise_kernel", "pointwise_kernel", "bias"):
        step = 1e-5 * rng.standard_normal(inputs[name].shape)
        exact = inputs[name].astype(float)
        difference = loss(**{name: exact + step}) - loss(**{name: exact - step})
        np.testing.assert_allclose(difference / 2, (answers[f"d{name}"] * step).sum(), rtol=1e-6)


def test_ours_gives_the_right_answers_in_every_mode():
    ours = peers.load(peers.OURS)(1)
    for workload in (SMALL, MULTIPLIED):
        for mode, (operation, *_) in MODES.items():
            if operation != "depthwise" and workload.filters is None:
                continue
            case = Case(workload, 2, mode)
            inputs, answers = cases.make(case)
            for build in ours.builds(case, inputs, True).values():
                prepared = build()
                received = prepared.outputs(prepared.run())
                for name, answer in answers.items():
                    assert cases.relative_error(received[name], answer) < 1e-5, (case, name)


def prepare(tmp_path, case, builds):
    """What a worker's process answers when a peer has these ways to run a case."""
    inputs, answers = cases.make(case)
    cases.save(tmp_path / "inputs", inputs)
    cases.save(tmp_path / "answers", answers)
    server = worker._Server(SimpleNamespace(builds=builds))
    return server, server.prepare(worker.encode(case), str(tmp_path), True)


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


@pytest.mark.parametrize(("seconds", "calls"), [(1e-3, 3), (0.3, 2), (4.0, 1)])
def test_the_longer_a_call_the_fewer(seconds, calls):
    asked = []
    chosen = {"setting": "the only one", "seconds": seconds}

    class Fake:
        def ask(self, patience, do, **options):
            asked.append(do)
            return {"seconds": [seconds] * options["calls"]} if do == "run" else chosen

    plan = measure.Plan(seconds=0.1, rounds=3)
    turns = measure._Round(Case(SMALL, 1, "depthwise"), MACHINE, plan, {})
    turns.team = {peers.OURS: Fake()}
    turns._time({peers.OURS: 0.0})
    assert asked == ["choose", *["run"] * calls]


def test_an_output_that_is_missing_is_wrong(tmp_path):
    def builds(case, inputs, thorough):
        answers = cases.make(case)[1]
        return {"y alone": lambda: peers.Prepared(lambda: 0, lambda _: {"y": answers["y"]})}

    _, answer = prepare(tmp_path, Case(SMALL, 1, "separable-training"), builds)
    assert answer["settings"] == []
    assert "is missing" in answer["wrong"]["y alone"]


def test_a_process_that_ends_is_told_of_and_started_anew():
    plan = measure.Plan(seconds=0.01, rounds=2, patience=30)
    with measure.workers([], 1, 60) as team:
        os.kill(team[peers.OURS]._process.pid, 9)
        first, second = measure.run([Case(SMALL, 1, "depthwise")] * 2, MACHINE, plan, team)
    assert "its process ended" in first.failures[peers.OURS]
    assert first.ours is None
    assert second.ours is not None
    assert second.ours.error < 1e-5


def test_a_run_stops_at_its_deadline():
    plan = measure.Plan(deadline=-1)
    assert list(measure.run([Case(SMALL, 1, "depthwise")], MACHINE, plan, {})) == []


def result(case, ours, **others):
    samples = {peers.OURS: ours, **others}
    return measure.Result(
        case,
        roofline.floor(case, MACHINE),
        {name: measure.Sample("as it is", 1e-8, times) for name, times in samples.items()},
        {"jax": "took longer than 30 s"},
    )


@pytest.fixture
def finished():
    """A report where one case is won, one lost, and one not measured at all."""
    results = [
        result(Case(SMALL, 1, "separable"), [1e-3, 2e-3, 3e-3], torch=[4e-3], litert=[8e-3]),
        result(Case(SMALL, 8, "separable"), [4e-3], torch=[2e-3], litert=[16e-3]),
        measure.Result(
            Case(SMALL, 1, "depthwise"), roofline.floor(Case(SMALL, 1, "depthwise"), MACHINE)
        ),
    ]
    versions = {"torch": "2.0", "jax": "0.9", "litert": "2.1"}
    return report.Report(
        [("processor", "one | two")], MACHINE, measure.Plan(), versions, results, 7
    )


def test_summaries_are_geometric_means(finished):
    one, eight, both = report.summaries(finished.results)
    assert (one.batch, eight.batch, both.batch) == (1, 8, 0)
    assert one.best == pytest.approx(2)
    assert eight.best == pytest.approx(0.5)
    assert (both.best, both.slower, both.cases) == (pytest.approx(1), 1, 2)
    assert both.each == {"torch": pytest.approx(1), "litert": pytest.approx(4)}


def test_files_tell_who_is_faster(finished, tmp_path):
    paths = report.write(tmp_path / "out", finished)
    assert {path.name for path in paths} == {path.name for path in (tmp_path / "out").iterdir()}
    markdown = (tmp_path / "out" / "bench.md").read_text(encoding="utf-8")
    assert "| 2 (1.5 to 2.5) | 4 PyTorch | 2.00x |" in markdown
    assert "| 2 PyTorch | 0.50x slower |" in markdown
    assert "took longer than 30 s" in markdown
    assert "one / two" in markdown
    assert "7 cases left out" in markdown
    data = json.loads((tmp_path / "out" / "bench.json").read_text(encoding="utf-8"))
    assert data["results"][1]["speed_up"] == pytest.approx(0.5)
    assert data["results"][1]["best_peer"] == "torch"
    assert data["results"][2]["times_floor"] is None
    assert data["machine"]["levels"][-1]["size"] is None


def test_the_plot_is_a_picture_for_light_and_dark(finished):
    svg = plot.roofline(finished.results, MACHINE)
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert "prefers-color-scheme: dark" in svg
    assert "#0101" not in svg
    assert "var(--blue)" in svg
    for words in ("separable", "best peer", "memory 10 GB/s", "multiply-adds 100 GFLOP/s"):
        assert words in svg


def test_bars_go_to_the_side_of_who_is_faster():
    svg = bars.bars({"separable": {"PyTorch": 2.0, "LiteRT": 0.5}, "nothing was timed": {}})
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert svg.count("fill: var(--blue)") == svg.count("fill: var(--orange)") == 1
    for words in ("PyTorch", "LiteRT", ">2.00x<", ">0.50x<", ">separable<"):
        assert words in svg
    assert "nothing was timed" not in svg
    assert bars.bars({}).startswith("<svg")


def test_a_run_from_the_command_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(workloads, "WORKLOADS", (SMALL,))
    folder = tmp_path / "out"
    monkeypatch.setattr(benchmark, "chosen_peers", lambda against: [])
    arguments = ["bench", "--quick", "--threads", "1", "--mode", "separable,depthwise-training"]
    assert cli.main([*arguments, "--workloads", "small", "--output", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "small/1" in shown
    assert "Geometric means" in shown
    data = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    assert [r["mode"] for r in data["results"]] == ["separable", "depthwise-training"]
    assert all(r["samples"]["sepconv"]["error"] < 1e-5 for r in data["results"])
    assert data["machine"]["threads"] == 1
    assert data["left_out"] == 0


def test_an_interrupt_keeps_what_was_measured(monkeypatch, tmp_path, capsys):
    def interrupted(chosen, machine, plan, team, show):
        yield result(chosen[0], [1e-3])
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "run", interrupted)
    monkeypatch.setattr(benchmark, "chosen_peers", lambda against: [])
    arguments = ["bench", "--quick", "--workloads", "eegnet", "--output", str(tmp_path / "out")]
    assert cli.main(arguments) == 130
    assert len(json.loads((tmp_path / "out" / "bench.json").read_text())["results"]) == 1
    assert "stopped before the end" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "mxnet"], "--against must name some of torch, tensorflow"),
        (["--workloads", "resnet"], "nothing to measure for --workloads 'resnet'"),
        (["--mode", "sideways"], "Modes are: separable,"),
        (["--threads", "100000"], "cores, received 100000"),
    ],
)
def test_wrong_choices_are_named(arguments, message, tmp_path, capsys):
    assert cli.main(["bench", *arguments, "--output", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_a_peer_that_is_not_installed_is_told_with_its_cure(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(peers.load("openvino"), "available", classmethod(lambda cls: False))
    assert cli.main(["bench", "--against", "openvino", "--output", str(tmp_path)]) == 2
    assert "pip install openvino onnx" in capsys.readouterr().err
    assert any("OpenVINO is not installed" in hint for hint in benchmark.missing())
    assert "openvino" not in benchmark.chosen_peers(None)


def test_the_output_must_be_a_folder(tmp_path, capsys):
    path = tmp_path / "file"
    path.touch()
    assert cli.main(["bench", "--output", str(path)]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert cli.main(["bench", "--output", str(tmp_path / "no" / "out")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_the_help_names_everything_to_choose_from(capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", "--help"])
    shown = capsys.readouterr().out
    for words in ("keras-jax", "depthwise-training+relu6", "replknet_31b", "--quick"):
        assert words in shown
