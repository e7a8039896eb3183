"""The tests that Keras has of its depthwise and separable layers, with ours in their place."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import keras
import keras_tests
import pytest

from sepconv import layers

SCRIPT = Path(keras_tests.__file__)
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("keras.src.layers.convolutional.depthwise_conv_test") is None,
    reason="this version of Keras does not bring its tests",
)


def test_keras_own_tests_pass():
    # In a process of their own, since they change Keras' global state.
    command = [sys.executable, str(SCRIPT), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"tests of sepconv.layers on {keras.backend.backend()}" in done.stdout
    passed, ran = re.search(r"convolutions: (\d+) of (\d+) passed", done.stdout).groups()
    assert passed == ran
    assert int(ran) >= 30


@pytest.fixture
def suite(monkeypatch):
    """A function that judges tests of ours, as if they were Keras' own of DepthwiseConv1D."""

    def judge(source):
        module = type(sys)("keras.src.layers.stand_in_test")
        exec(source, vars(module))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return keras_tests.judge({"a suite": (("stand_in_test",), ("DepthwiseConv1D",))}, layers)

    return judge


SOURCE = """
import unittest
import numpy as np
from keras.src import layers

class Test(unittest.TestCase):
    def test_it_is_ours(self):
        assert layers.DepthwiseConv1D.__module__ == "sepconv.layers.depthwise_conv1d"

    def test_layer(self):
        {body}
"""


def test_a_suite_that_passes(suite):
    stock = keras.src.layers.DepthwiseConv1D
    body = 'layers.DepthwiseConv1D(3)(np.zeros((2, 5, 4), "float32"))'
    lines, complaints = suite(SOURCE.format(body=body))
    assert lines == ["a suite: 2 of 2 passed", "    calls: DepthwiseConv1D 1"]
    assert not complaints
    assert keras.src.layers.DepthwiseConv1D is stock


@pytest.mark.parametrize(
    ("body", "complaints"),
    [
        ("layers.DepthwiseConv1D(3)", ["DepthwiseConv1D was never called"]),
        (
            'layers.DepthwiseConv1D(3)(np.zeros((2, 2, 4), "float32"))',
            ["a suite: 1 of 2 did not pass", "DepthwiseConv1D was never called"],
        ),
        (
            'assert not np.any(layers.DepthwiseConv1D(3)(np.zeros((2, 5, 4), "float32")).shape)',
            ["a suite: 1 of 2 did not pass"],
        ),
    ],
)
def test_what_is_complained_about(suite, body, complaints):
    assert suite(SOURCE.format(body=body))[1] == complaints


def test_complaints_are_the_exit_status(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["keras_tests.py", "--quick"])
    monkeypatch.setattr(keras_tests, "judge", lambda suites, kit: (["1 of 2 passed"], ["a reason"]))
    assert keras_tests.main() == 1
    assert "1 of 2 passed\nFAILED: a reason" in capsys.readouterr().out
