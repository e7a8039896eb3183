"""The commands on files of models on every engine: compile, and when the process is to end."""

import os
import signal

import keras
import numpy as np
import pytest

import sepconv
from sepconv import cli


@pytest.fixture
def no_handler():
    """SIGTERM as it is in a process of nobody else's; what measures coverage has a handler."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("no_handler")
def test_termination_leaves_no_draft_and_the_signal_as_it_was(tmp_path, monkeypatch, capsys):
    source, target = tmp_path / "in.keras", tmp_path / "out.keras"
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)]).save(source)
    drafts = []

    def save(model, path):
        path.write_bytes(b"half of it")
        drafts.append(path)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it went on")

    monkeypatch.setattr(keras.Model, "save", save)
    assert cli.main(["factorize", str(source), str(target), "--rank", "1"]) == 143
    assert "out.keras was not written" in capsys.readouterr().err
    assert drafts
    assert os.listdir(tmp_path) == ["in.keras"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_compile_makes_a_program_of_a_model_on_this_engine(tmp_path, capsys):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.SeparableConv2D(6, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4, activation="softmax"),
        ]
    )
    source, target = tmp_path / "in.keras", tmp_path / "out.sepconv"
    model.save(source)
    assert cli.main(["compile", str(source), str(target)]) == 0
    assert "The same predictions" in capsys.readouterr().out
    x = np.random.default_rng(0).standard_normal((3, 12, 12, 3), "float32")
    np.testing.assert_allclose(sepconv.load(target)(x), model.predict_on_batch(x), atol=1e-6)


def test_compile_names_a_layer_that_it_does_not_know(tmp_path, capsys):
    source = tmp_path / "in.keras"
    keras.Sequential([keras.Input((5,)), keras.layers.Embedding(7, 3, name="words")]).save(source)
    assert cli.main(["compile", str(source), str(tmp_path / "out.sepconv")]) == 2
    said = capsys.readouterr().err
    assert str(source) in said
    assert "words" in said
    assert os.listdir(tmp_path) == ["in.keras"]
