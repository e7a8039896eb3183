"""The script in examples/ that factorizes a network runs; here on a network as small as may be."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_factorize_digits(capsys):
    pytest.importorskip("sklearn")
    spec = importlib.util.spec_from_file_location("digits", EXAMPLES / "factorize_digits.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    outcome = script.run((4, 16, 16), epochs=2, flops=0.4, seed=0)
    before, after = outcome.report.multiply_adds
    assert after <= 0.4 * before
    assert outcome.tuned > 0.3  # a tenth is chance
    assert "fine-tuned for 3 epochs" in capsys.readouterr().out
