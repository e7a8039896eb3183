"""sepconv.compile of PyTorch modules: without Keras, checked, left as they were."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import sepconv  # noqa: E402
from sepconv.program.dtypes import value_dtypes  # noqa: E402


def block():
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU())


def test_a_program_needs_no_keras():
    code = """
import sys
sys.modules["keras"] = None
import torch, numpy as np, sepconv
module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU6())
program = sepconv.compile(module, torch.zeros(1, 3, 6, 6))
print(program(np.ones((2, 3, 6, 6))).shape, "jax" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2, 4, 4, 4) False"


def test_a_file_gives_the_same_bits(tmp_path):
    program = sepconv.compile(block(), torch.zeros(1, 3, 6, 6))
    program.save(tmp_path / "block.sepconv")
    x = np.random.default_rng(0).normal(size=(3, 3, 6, 6)).astype("float32")
    np.testing.assert_array_equal(sepconv.load(tmp_path / "block.sepconv")(x), program(x))


def test_the_module_stays_as_it_was():
    module = block().train()
    module[2].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    sepconv.compile(module, torch.randn(2, 3, 6, 6))
    assert [part.training for part in module] == [True, True, False, True]
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_bfloat16_of_a_module_of_float32():
    module = block().eval()
    program = sepconv.compile(module, torch.zeros(1, 3, 6, 6), dtype="bfloat16")
    assert "bfloat16" in value_dtypes(program.network)
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        expected = module(x).numpy()
    found = program(x.numpy())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2**-5 * np.abs(expected).max())
    assert not np.array_equal(found, expected)
    with pytest.raises(ValueError, match=r"give module\.float\(\), and dtype='bfloat16'"):
        sepconv.compile(block().bfloat16(), torch.zeros(1, 3, 6, 6, dtype=torch.bfloat16))


def test_float64_of_a_module_of_float32():
    module = block().eval()
    program = sepconv.compile(module, torch.zeros(1, 3, 6, 6), dtype="float64")
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        expected = module.double()(x).numpy()
    np.testing.assert_allclose(program(x.numpy()), expected, rtol=1e-9, atol=1e-12)


def test_several_inputs_and_outputs():
    class Two(nn.Module):
        def forward(self, pair, more):
            return {"sum": pair[0] + pair[1], "product": more * 2}

    x = torch.zeros(2, 3)
    program = sepconv.compile(Two(), ((x, x), x))
    total, product = program(np.ones((4, 3)), np.ones((4, 3)), np.ones((4, 3)))
    np.testing.assert_array_equal(total, 2 * np.ones((4, 3)))
    np.testing.assert_array_equal(product, 2 * np.ones((4, 3)))


def test_verify_finds_what_differs():
    compiler = torch.compiler
    exporting = getattr(compiler, "is_exporting", compiler.is_compiling)  # of PyTorch 2.6

    class Random(nn.Module):
        """Gives something else than its graph says."""

        def forward(self, x):
            return x * (2 if exporting() else 3)

    with pytest.raises(ValueError, match="does not give what the module does"):
        sepconv.compile(Random(), torch.ones(2, 3))
    with pytest.raises(ValueError, match="does not give what the module does"):
        sepconv.compile(Random(), torch.zeros(2, 3), verify=torch.ones(1, 3))
    program = sepconv.compile(Random(), torch.ones(2, 3), verify=False)
    np.testing.assert_array_equal(program([[1.0, 1.0, 1.0]]), [[2.0, 2.0, 2.0]])


def test_arguments_for_the_other_kind():
    with pytest.raises(TypeError, match="needs example_inputs"):
        sepconv.compile(block())
    with pytest.raises(TypeError, match="partial=True"):
        sepconv.compile(block(), torch.zeros(1, 3, 6, 6), partial=True)
    with pytest.raises(TypeError, match="for PyTorch modules"):
        sepconv.compile("no model", torch.zeros(1, 3, 6, 6))
    with pytest.raises(ValueError, match=r"'0\.weight' is on the device meta"):
        sepconv.compile(nn.Sequential(nn.Conv2d(3, 8, 3)).to("meta"), torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="half precision"):
        sepconv.compile(block().half(), torch.zeros(1, 3, 6, 6).half())
    with pytest.raises(ValueError, match="dtype must be"):
        sepconv.compile(block(), torch.zeros(1, 3, 6, 6), dtype="float16")


def test_a_network_of_geffnet():
    geffnet = pytest.importorskip("geffnet")
    module = geffnet.mobilenetv3_small_100(pretrained=False, num_classes=7)
    program = sepconv.compile(module, torch.randn(1, 3, 32, 32))
    assert program.output_shapes((5, 3, 32, 32)) == [(5, 7)]
    operations = [step.operation for step in program.network.steps]
    assert operations.count("transpose") == 1  # of the images that it is given
    assert "scale" not in operations  # since every normalization is in a convolution


def test_an_accelerated_module_compiles_and_stays_accelerated():
    stock = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.Conv2d(8, 9, 1))
    x = torch.randn(2, 8, 6, 6)
    expected = sepconv.compile(stock, x)(x.numpy())
    module, record = sepconv.accelerate(stock)
    assert record.changed == 3
    kinds = [type(part) for part in module]
    np.testing.assert_array_equal(sepconv.compile(module, x)(x.numpy()), expected)
    assert [type(part) for part in module] == kinds
