"""SEPCONV_TEST_ENGINES decides whether the tests of layers and models run at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[2]
OTHERS = sorted({"jax", "torch", "tensorflow"} - {keras.backend.backend()})


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (f"{OTHERS[0]}, {keras.backend.backend()}", "passed"),
        (", ".join(OTHERS), "skipped"),
    ],
)
def test_blanks_skip_nothing(text, outcome):
    if keras.backend.backend() == "numpy":
        pytest.skip("is always tested where Keras runs on it")
    tests = [
        "tests/layers/test_contract.py::test_numpy_integers_are_integers",
        "tests/models/test_patch.py::test_it_is_idempotent_and_reversible",
    ]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", *tests]
    env = dict(os.environ) | {"SEPCONV_TEST_ENGINES": text}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(outcome.upper()) == len(tests), done.stdout
