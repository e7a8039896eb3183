"""`sepconv.quantize` of PyTorch modules."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import sepconv
from sepconv.modules import ProgramModule


class Gated(nn.Module):
    """A block with squeeze-and-excite and a residual, and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
        )
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.SiLU())
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.SiLU(), nn.Conv2d(4, 8, 1), nn.Sigmoid()
        )
        self.project = nn.Conv2d(8, 8, 1)
        self.classes = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        y = self.depthwise(x)
        x = x + self.project(y * self.gate(y))
        return {"scores": self.classes(x.mean((2, 3)))}


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return Gated().eval()


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.standard_normal((64, 3, 12, 12)).astype("float32"))


@pytest.fixture(scope="module")
def made(module, pictures):
    return sepconv.quantize(module, pictures)


def test_it_gives_nearly_the_same_in_the_same_structure(module, made, pictures):
    assert isinstance(made.model, ProgramModule)
    assert not made.record.floats
    with torch.no_grad():
        expected, found = module(pictures)["scores"], made.model(pictures)["scores"]
    apart = ((found - expected) ** 2).mean() / (expected**2).mean()
    assert 0 < apart < 0.05**2
    assert all(block.int8 for block in made.record)


def test_it_is_copied_and_its_file_written(made, pictures, tmp_path):
    expected = made.model(pictures[:3])["scores"]
    assert torch.equal(copy.deepcopy(made.model)(pictures[:3])["scores"], expected)
    (tmp_path / "net.sepconv").write_bytes(made.model.file.numpy().tobytes())
    found = sepconv.load(tmp_path / "net.sepconv")(pictures[:3].numpy())
    np.testing.assert_array_equal(found, expected.numpy())


def test_batches_of_a_loader_are_taken(module, made, pictures):
    labels = torch.zeros(64)
    data = torch.utils.data.TensorDataset(pictures, labels)
    again = sepconv.quantize(module, torch.utils.data.DataLoader(data, 16))
    expected, found = made.model(pictures)["scores"], again.model(pictures)["scores"]
    assert torch.equal(found, expected)


def test_examples_that_are_all_the_same(module, pictures):
    same = torch.zeros_like(pictures)
    small, record = sepconv.quantize(module, same)
    assert record.error < 0.01
    found, expected = small(same)["scores"], module(same)["scores"]
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0.01)


def test_examples_without_a_batch_are_refused(module, pictures):
    data = torch.utils.data.TensorDataset(pictures, torch.zeros(len(pictures)))
    for given in (data, pictures[0]):
        with pytest.raises(ValueError, match=r"not with these inputs, of the shapes \[\(2, \d"):
            sepconv.quantize(module, given)


def test_examples_that_are_none_are_refused(module, pictures):
    with pytest.raises(ValueError, match="must have examples"):
        sepconv.quantize(module, pictures[:0])
    with pytest.raises(TypeError, match=r"must hold numbers. Received: an array of complex64"):
        sepconv.quantize(module, pictures + 1j)


def test_modules_of_other_dtypes(module, made, pictures):
    double = copy.deepcopy(module).double()
    for given in (pictures, pictures.double()):
        small, _ = sepconv.quantize(double, given)
        assert torch.equal(small(pictures)["scores"], made.model(pictures)["scores"])
    with pytest.raises(ValueError, match=r"half precision .* are not supported: give module.float"):
        sepconv.quantize(copy.deepcopy(module).bfloat16(), pictures)


def test_a_module_of_two_arguments():
    class Sum(nn.Module):
        def forward(self, first, second, scale=2.0):
            return torch.relu(first + second) * scale

    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.standard_normal((32, 6)).astype("float32")) for _ in range(2))
    made = sepconv.quantize(Sum(), (a, b))
    assert (made.model(a, b) - Sum()(a, b)).abs().max() < 0.1


def test_other_things_are_refused(module, pictures):
    with pytest.raises(ValueError, match="must have examples"):
        sepconv.quantize(module, [])
    with pytest.raises(ValueError, match="which fits none"):
        sepconv.quantize(module, pictures, keep=["no such"])
