"""The commands on files of models when the process is asked to end."""

import os
import signal

import keras

from sepconv import cli


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
