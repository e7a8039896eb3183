"""benchmarks/int8_labels.py: a network trained here keeps its accuracy in int8."""

import dataclasses
import importlib
import sys

import numpy as np
import pytest
from helpers import scripts


@pytest.fixture
def module():
    with scripts.importable(scripts.BENCHMARKS):
        yield importlib.import_module


def test_digits_lose_next_to_nothing(keras, module):
    pytest.importorskip("sklearn")
    from sepconv.demo import data

    labels = module("int8_labels")
    whole = data.load("digits")
    half = {name: getattr(whole, name)[:, ::2, ::2] for name in ("x_train", "x_test")}
    pictures = dataclasses.replace(whole, **half)
    model = labels.trained(pictures, 6, seed=0, filters=(16, 32), strides=(2,))
    real, found, same = labels.measured(model, pictures)
    assert real > 0.5  # it learned; a tenth would be by chance
    assert same > 0.97
    assert real - found < 0.01


def test_too_much_that_is_lost_is_an_error(module, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    labels = module("int8_labels")
    monkeypatch.setattr(labels, "trained", lambda *given: None)
    monkeypatch.setattr(labels, "measured", lambda *given: (0.98, 0.978, 0.99))
    monkeypatch.setattr(sys, "argv", ["int8_labels.py", "digits", "--seeds", "2"])
    assert labels.main() == 0
    assert (
        "| scikit-learn digits | 1 | 98.00% | 97.80% | 0.20 | 99.00% |" in capsys.readouterr().out
    )
    monkeypatch.setattr(labels, "measured", lambda *given: (0.98, 0.97, 0.99))
    assert labels.main() == 1
    assert "scikit-learn digits: 1.00" in capsys.readouterr().err


def test_crops_of_faces_are_of_two_halves(module):
    pytest.importorskip("skimage")
    faces = module("mini_xception").faces
    seen, tested = (faces(8, seed=1, tested=each) for each in (False, True))
    assert seen.shape == tested.shape == (8, 64, 64, 1)
    assert seen.dtype == np.uint8
    np.testing.assert_array_equal(seen, faces(8, seed=1, tested=False))
    assert np.abs(seen.astype(int) - tested).mean() > 10
