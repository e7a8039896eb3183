"""`sepconv.export_onnx` of PyTorch modules, of float32 and of int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import onnx_files
from torch import nn

import sepconv
from sepconv.models.export_onnx import contents_of
from sepconv.quantization.origin import NOTE

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def _module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6()),
        *(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Hardswish()),
        *(nn.Conv2d(8, 16, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
    ).eval()


def test_modules_of_float32_and_int8(tmp_path: Path) -> None:
    module, x = _module(), torch.randn(32, 3, 12, 10)
    with pytest.raises(TypeError, match="needs example_inputs for a PyTorch module"):
        sepconv.export_onnx(module, tmp_path / "a.onnx")
    sepconv.export_onnx(module, tmp_path / "float.onnx", x[:1])
    (found,) = onnx_files.run(str(tmp_path / "float.onnx"), x.numpy())
    np.testing.assert_allclose(found, module(x).detach().numpy(), atol=1e-5)

    small = sepconv.quantize(module, x).model
    sepconv.export_onnx(small, tmp_path / "int8.onnx")
    (found,) = onnx_files.run(str(tmp_path / "int8.onnx"), x.numpy())
    assert contents_of(small).network.steps[-1].operation == "dequantized_dense"
    expected = small(x).numpy()
    step = np.ptp(expected) / 255
    assert np.mean(np.abs(found - expected) < 1.5 * step) > 0.99
    # A program of it says the same of its bytes.
    program = sepconv.compile(small, x[:1], verify=False)
    sepconv.export_onnx(program, tmp_path / "program.onnx")
    assert (tmp_path / "program.onnx").read_bytes() == (tmp_path / "int8.onnx").read_bytes()
    assert list(program.notes) == [NOTE]
    nodes = [node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node]
    # Channels are first already, so that nothing is transposed.
    assert (nodes.count("Conv"), nodes.count("Transpose")) == (3, 0)
