"""The command line: what it says, what it refuses, and its exit codes."""

import subprocess
import sys

import pytest

from sepconv import __version__, cli


def test_help_teaches_with_examples(capsys):
    for arguments in (["--help"], ["demo", "--help"], ["doctor", "--help"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "sepconv demo --engine torch" in shown
    assert "sepconv demo --data fashion-mnist" in shown
    assert "exit code 1 if something is broken" in " ".join(shown.split())


@pytest.mark.parametrize(
    "name", ["accelerate", "compile", "explain", "factorize", "optimize", "quantize", "run"]
)
def test_commands_that_write_have_examples_and_ask_before_they_overwrite(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"\n  sepconv {name} " in shown
    assert "--force" in shown


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


def test_importing_the_command_line_is_quick_and_imports_little():
    code = "import sys, sepconv.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True)
    modules = set(loaded.stdout.decode().split())
    heavy = {"jax", "torch", "tensorflow", "keras", "rich", "sklearn", "matplotlib"}
    assert "sepconv.cli" in modules
    assert not modules & heavy
    # Of the commands' packages only what says their options.
    for name in ("bench", "demo", "explain", "models", "program"):
        of_command = {m for m in modules if m.startswith(f"sepconv.{name}.")}
        wanted = {f"sepconv.{name}.command"}
        others = {f"sepconv.models.{other}_command" for other in ("quantize", "export")}
        assert of_command - others == wanted
