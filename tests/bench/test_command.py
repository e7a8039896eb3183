"""`sepconv bench`: a run, an interrupted one, and what is refused."""

import dataclasses
import json

import pytest
from helpers.benchmarks import MACHINE, SMALL, result

from sepconv import cli
from sepconv.bench import benchmark, measure, peers, roofline, workloads


def test_a_run_from_the_command_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(workloads, "WORKLOADS", (SMALL,))
    folder = tmp_path / "out"
    monkeypatch.setattr(benchmark, "chosen_peers", lambda against, dtype: [])
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


def test_a_run_in_bfloat16_has_float32_beside_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(workloads, "WORKLOADS", (SMALL,))
    folder = tmp_path / "out"
    monkeypatch.setattr(benchmark, "chosen_peers", lambda against, dtype: [])
    asked = []

    def measured(threads, seconds, dtype):
        asked.append(dtype)
        return dataclasses.replace(MACHINE, dtype=dtype)

    monkeypatch.setattr(roofline, "measure", measured)
    arguments = ["bench", "--quick", "--threads", "1", "--mode", "separable,pointwise-training"]
    arguments += ["--dtype", "bfloat16", "--workloads", "small", "--output", str(folder)]
    assert cli.main(arguments) == 0
    assert asked == ["bfloat16", "bfloat16"]
    assert "behind" in capsys.readouterr().out
    data = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    assert data["dtype"] == data["facts"]["dtype"] == "bfloat16"
    for row in data["results"]:
        samples = row["samples"]
        assert samples["sepconv-float32"]["error"] < 1e-6 < samples["sepconv"]["error"] < 2.0**-6
        medians = samples["sepconv-float32"]["median"] / samples["sepconv"]["median"]
        assert row["gain"] == pytest.approx(medians)
        assert row["best_peer"] is None
    markdown = (folder / "bench.md").read_text(encoding="utf-8")
    assert "# sepconv bench, bfloat16" in markdown
    assert "| float32, ms | gain |" in markdown
    assert "| gain over float32 | behind float32 in |" in markdown
    assert ">sepconv in float32<" in (folder / "speedup.svg").read_text(encoding="utf-8")


def test_peers_that_lack_a_dtype_are_told_of(tmp_path, capsys):
    arguments = ["bench", "--dtype", "bfloat16", "--against", "litert", "--output", str(tmp_path)]
    if peers.load("litert").available():
        assert cli.main(arguments) == 2
        assert "LiteRT/XNNPACK does not compute in bfloat16" in capsys.readouterr().err
    hints = benchmark.missing("bfloat16")
    assert "ONNX Runtime does not compute in bfloat16, so it is left out" in hints
    assert {"onnxruntime", "litert"}.isdisjoint(benchmark.chosen_peers(None, "bfloat16"))


def test_an_interrupt_keeps_what_was_measured(monkeypatch, tmp_path, capsys):
    def interrupted(chosen, machine, plan, team, show):
        yield result(chosen[0], [1e-3])
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "run", interrupted)
    monkeypatch.setattr(benchmark, "chosen_peers", lambda against, dtype: [])
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
