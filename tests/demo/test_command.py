"""`sepconv demo`: its table, its file, and how it fails."""

from types import SimpleNamespace

import pytest

from sepconv import cli


@pytest.fixture
def quick_demo(monkeypatch, comparison):
    """The demo without its training: `quick_demo(what)` makes the training return or raise it."""
    pictures = SimpleNamespace(title="digits", x_train=range(9), x_test=range(3))
    monkeypatch.setattr("sepconv.demo.data.load", lambda name: pictures)
    monkeypatch.setattr("sepconv.demo.compare.check_installed", lambda engine: None)

    def prepare(error=None):
        def compare(engine, data, epochs, seed, console):
            if error is not None:
                raise error
            assert (engine, data, epochs, seed) == ("jax", "digits", 8, 0)
            return comparison

        monkeypatch.setattr("sepconv.demo.compare.compare", compare)

    return prepare


def test_the_path_of_the_report_is_checked_before_training(tmp_path, capsys):
    assert cli.main(["demo", "--output", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert cli.main(["demo", "--output", str(tmp_path / "no" / "report.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_demo_prints_the_table_and_writes_the_report(quick_demo, tmp_path, capsys):
    quick_demo()
    path = tmp_path / "report.html"
    assert cli.main(["demo", "--output", str(path)]) == 0
    shown = capsys.readouterr().out
    for words in ("test accuracy", "seconds an epoch", "peak memory", "speed-up", "10.0x"):
        assert words in shown
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_an_interrupt_leaves_no_file(quick_demo, tmp_path, capsys):
    quick_demo(KeyboardInterrupt())
    assert cli.main(["demo", "--output", str(tmp_path / "report.html")]) == 130
    assert "no report was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_failed_training_is_told(quick_demo, tmp_path, capsys):
    from sepconv.demo.compare import TrainingError

    quick_demo(TrainingError("Training ended early"))
    assert cli.main(["demo", "--output", str(tmp_path / "report.html")]) == 1
    assert "Training ended early" in capsys.readouterr().err


def test_a_missing_engine_is_told_with_its_cure(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sepconv.demo.compare._found", lambda module: module != "torch")
    arguments = ["demo", "--engine", "torch", "--output", str(tmp_path / "report.html")]
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert "needs PyTorch, not installed here" in said
    assert "pip install 'sepconv[torch,demo]'" in said


def test_a_missing_data_set_is_told_with_its_cure(monkeypatch, tmp_path, capsys):
    from sepconv.demo import data

    monkeypatch.setattr("sepconv.demo.compare.check_installed", lambda engine: None)
    monkeypatch.setitem(data.DATA_SETS, "fashion-mnist", (lambda: data._fashion_mnist(tmp_path), 1))
    assert cli.main(["demo", "--data", "fashion-mnist", "--output", str(tmp_path / "r.html")]) == 2
    assert "sudo apt-get install dataset-fashion-mnist" in capsys.readouterr().err
