"""The scripts in examples/ that factorize and that export run, on networks as small as may be."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_factorize_digits(capsys):
    pytest.importorskip("sklearn")
    script = load("factorize_digits")
    outcome = script.run((4, 16, 16), epochs=2, flops=0.4, seed=0)
    before, after = outcome.report.multiply_adds
    assert after <= 0.4 * before
    assert outcome.tuned > 0.3  # a tenth is chance
    assert "fine-tuned for 3 epochs" in capsys.readouterr().out


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
