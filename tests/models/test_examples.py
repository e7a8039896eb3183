"""The scripts in examples/ that train, factorize and export run, on as little as may be."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path

import pytest
from helpers import scripts

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    with scripts.importable(EXAMPLES):
        return importlib.import_module(name)


def test_factorize_digits(capsys):
    pytest.importorskip("sklearn")
    script = load("factorize_digits")
    outcome = script.run((4, 16, 16), epochs=2, flops=0.4, seed=0)
    before, after = outcome.report.multiply_adds
    assert after <= 0.4 * before
    assert outcome.tuned > 0.3  # a tenth is chance
    assert "fine-tuned for 3 epochs" in capsys.readouterr().out


def test_train_bfloat16(monkeypatch, tmp_path, capsys):
    pytest.importorskip("sklearn")
    script = load("train_bfloat16")
    whole = script.load("digits")
    few = {"x_train": whole.x_train[:192], "y_train": whole.y_train[:192]}
    few |= {"x_test": whole.x_test[:64], "y_test": whole.y_test[:64]}
    monkeypatch.setattr(script, "load", lambda data: dataclasses.replace(whole, **few))
    path = tmp_path / "curves.json"
    code = script.main(["--epochs", "2", "--seeds", "1", "--output", str(path)])
    said = json.loads(path.read_text(encoding="utf-8"))
    (wide,), (half,) = (said["curves"][policy] for policy in script.POLICIES)
    assert len(half["loss"]) == len(half["val_accuracy"]) == 2
    assert half["loss"] != wide["loss"]
    assert half["loss"] == pytest.approx(wide["loss"], rel=0.05)
    assert half["loss"][1] < half["loss"][0]
    lost = wide["val_accuracy"][1] - half["val_accuracy"][1]
    assert code == (lost > script.TOLERANCE)
    assert "mixed_bfloat16" in capsys.readouterr().out


def test_the_network_of_train_bfloat16_computes_in_it():
    script = load("train_bfloat16")
    *rest, logits = script.build_network("mixed_bfloat16", 10).layers
    assert {layer.compute_dtype for layer in rest} == {"bfloat16"}
    assert logits.compute_dtype == "float32"
    wide = script.build_network("float32", 10)
    assert {layer.compute_dtype for layer in wide.layers} == {"float32"}


@pytest.mark.parametrize(("half", "code"), [(0.98, 1), (0.99, 0)])
def test_train_bfloat16_fails_where_accuracy_is_lost(half, code, monkeypatch, capsys):
    script = load("train_bfloat16")
    reached = {"float32": 0.99, "mixed_bfloat16": half}
    curves = {p: [{"loss": [1.0], "val_accuracy": [a]}] * 2 for p, a in reached.items()}
    monkeypatch.setattr(script, "compare", lambda data, epochs, seeds: curves)
    assert script.main([]) == code
    assert ("less accurate" in capsys.readouterr().err) == bool(code)


def test_export_onnx(engine, monkeypatch, capsys):
    for needed in ("onnx", "onnxruntime", "tf2onnx", "ai_edge_litert"):
        pytest.importorskip(needed)
    if engine != "tensorflow":
        pytest.skip("the example exports from TensorFlow")
    script = load("export_onnx")
    monkeypatch.setattr(sys, "argv", ["export_onnx.py", "--size", "64"])
    script.main()
    said = capsys.readouterr().out
    assert "40 layers are sepconv's" in said  # 13 convolutions, 27 normalizations
    differences = re.findall(r"^(.*): relative difference (.*)$", said, re.MULTILINE)
    assert [runtime for runtime, _ in differences] == list(script.RUNTIMES)
    assert all(float(difference) < 1e-5 for _, difference in differences), said
