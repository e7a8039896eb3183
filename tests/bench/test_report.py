"""What the benchmark writes: summaries, tables, and the two pictures."""

import dataclasses
import json
import xml.etree.ElementTree as ElementTree

import pytest
from helpers.benchmarks import MACHINE, SMALL, result

from sepconv.bench import bars, measure, plot, report, roofline
from sepconv.bench.workloads import Case


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


def test_what_a_dtype_gains_is_told(finished):
    case = Case(SMALL, 1, "separable", "bfloat16")
    gains = result(case, [1e-3], torch=[4e-3])
    gains.samples["sepconv-float32"] = measure.Sample("as it is", 1e-8, [2e-3])
    loses = result(case._replace(batch=8), [1e-3])
    loses.samples["sepconv-float32"] = measure.Sample("as it is", 1e-8, [0.5e-3])
    finished.machine = dataclasses.replace(MACHINE, dtype="bfloat16")
    finished.results = [gains, loses, result(case._replace(mode="depthwise"), [1e-3])]
    assert gains.best == "torch"
    assert loses.best is None
    *_, both, alone = report.summaries(finished.results)
    assert (both.gain, both.behind_float32) == (pytest.approx(1), 1)
    assert (alone.gain, alone.behind_float32) == (None, 0)
    text = report.markdown(finished)
    assert "| 4 PyTorch | 4.00x |" in text
    assert "| 2 | 2.00x |" in text
    assert "| 0.5 | 0.50x slower |" in text
    assert "100 GFLOP/s in bfloat16" in text
    assert "100 GFLOP/s, bfloat16" in plot.roofline(finished.results, finished.machine)


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
