"""`sepconv explain PACKAGE:NAME`: the table of a PyTorch module, and what is refused."""

import sys

import pytest

from sepconv import cli

pytest.importorskip("torch")

NETS = """
from torch import nn

made = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5))
number = 3


def make():
    return made


def needs(width):
    return made


def steps():
    return 3


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRU(8, 8)

    def forward(self, x):
        return self.cell(x)[0]
"""


@pytest.fixture(autouse=True)
def _nets(tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    yield
    sys.modules.pop("own_nets", None)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["made", "make"])
def test_it_prints_a_table(name, capsys):
    arguments = ["explain", f"own_nets:{name}", "--shape", "3x8x8", "--batch", "2"]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr().out
    for words in (f"own_nets:{name}", "on 2x3x8x8", "floor ms", "all of them"):
        assert words in shown


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent:net"], "absent:net: there is no module absent in "),
        (["own_nets:absent"], "own_nets:absent: the module own_nets has no absent"),
        (["own_nets:needs"], "needs() fails with TypeError: "),
        (["own_nets:steps"], "must be a torch.nn.Module, or make one"),
        (["own_nets:number"], "Received: int"),
        (["own_nets:made", "--shape", "4x8x8"], "own_nets:made: "),
        (["own_nets:Recurrent", "--shape", "2x8"], "own_nets:Recurrent: "),
        (["own_nets:made", "--engine", "jax"], "--engine is for Keras models, and own_nets:made"),
        (["own_nets:made", "--size", "8"], "--size is for Keras models and programs"),
        (["MobileNet", "--shape", "3x8x8"], "--shape is for PyTorch modules"),
        (["a.sepconv", "--shape", "3x8x8"], "--shape is for PyTorch modules"),
    ],
)
def test_what_cannot_be_explained_is_named(arguments, message, capsys):
    assert cli.main(["explain", *arguments]) == 2
    assert message in capsys.readouterr().err
