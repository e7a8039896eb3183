"""The command line: what it says, what it refuses, and its exit codes."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from sepconv import __version__, cli
from sepconv.doctor import Finding


def test_help_teaches_with_examples(capsys):
    for arguments in (["--help"], ["demo", "--help"], ["doctor", "--help"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "sepconv demo --engine torch" in shown
    assert "sepconv demo --data fashion-mnist" in shown
    assert "exit code 1 if something is broken" in " ".join(shown.split())


def test_no_command_shows_the_help(capsys):
    assert cli.main([]) == 0
    assert "usage: sepconv" in capsys.readouterr().out


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"sepconv {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--engine", "mxnet"], "invalid choice: 'mxnet'"),
        (["demo", "--data", "imagenet"], "invalid choice: 'imagenet'"),
        (["demo", "--epochs", "0"], "must be at least 1, received 0"),
        (["demo", "--epochs", "many"], "'many'"),
        (["demo", "--seed", "-1"], "must be in 0 .. 2**32 - 1, received -1"),
        (["sing"], "invalid choice: 'sing'"),
    ],
)
def test_wrong_usage_is_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_path_of_the_report_is_checked_before_training(tmp_path, capsys):
    assert cli.main(["demo", "--output", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert cli.main(["demo", "--output", str(tmp_path / "no" / "report.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_importing_the_command_line_is_quick_and_imports_little():
    code = "import sys, sepconv.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True)
    modules = set(loaded.stdout.decode().split())
    heavy = {"jax", "torch", "tensorflow", "keras", "rich", "sklearn", "matplotlib"}
    assert "sepconv.cli" in modules
    assert not modules & heavy
    # Of the commands' packages only what says their options.
    for name in ("bench", "demo", "explain", "models"):
        of_command = {m for m in modules if m.startswith(f"sepconv.{name}.")}
        assert of_command == {f"sepconv.{name}.command"}


FINDINGS = [
    Finding("NumPy kernels", "ok", "loaded"),
    Finding("JAX", "missing", "not installed", "pip install 'sepconv[jax]'"),
]
BROKEN = Finding("PyTorch", "broken", "2.0, but sepconv.torch fails: no [symbol]", "build anew")


@pytest.mark.parametrize(("findings", "code"), [(FINDINGS, 0), ([*FINDINGS, BROKEN], 1)])
def test_doctor_fails_only_for_what_is_broken(findings, code, monkeypatch, capsys):
    monkeypatch.setattr("sepconv.doctor.examine", lambda: findings)
    assert cli.main(["doctor"]) == code
    shown = capsys.readouterr().out
    for what, state, *_ in findings:
        assert what in shown
        assert state in shown
    assert "pip install 'sepconv[jax]'" in shown


def test_doctor_needs_no_rich(monkeypatch, capsys):
    monkeypatch.setattr("sepconv.doctor.examine", lambda: [*FINDINGS, BROKEN])
    monkeypatch.setitem(sys.modules, "rich", None)
    assert cli.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ok", "NumPy", "kernels", "loaded"]
    assert lines[-2].endswith("no [symbol]")


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
