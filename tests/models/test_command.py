"""The commands on files of models when the process is asked to end."""

import os
import signal

import keras
import pytest

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
