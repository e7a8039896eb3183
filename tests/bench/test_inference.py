"""benchmarks/inference.py in bfloat16: who takes part, and whose outputs count."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def inference():
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("inference")
    sys.path.remove(str(FOLDER))
    for name in ("inference", "exports", "exports_int8", "networks", "runtimes", "settings"):
        sys.modules.pop(name)


def test_those_without_bfloat16_are_named_and_left_out(inference, capsys):
    who = inference.with_narrow(["keras-jax", "openvino", "litert"], "bfloat16")
    assert who == ["keras-jax", "openvino", "keras-jax-bfloat16", "openvino-bfloat16"]
    assert "litert does not compute in bfloat16, so it is left out" in capsys.readouterr().out
    assert [inference.dtype_of(one) for one in who] == ["float32"] * 2 + ["bfloat16"] * 2
    files = {name for one in inference.RUNTIMES for name in inference.RUNTIMES[one]}
    assert files <= set(inference.exports.FILES)


def test_outputs_in_bfloat16_are_held_against_float32(inference, tmp_path):
    path = tmp_path / "expected.npy"
    y = np.linspace(-1, 1, 100, dtype=np.float32)
    alone = inference.choose({"a": lambda: lambda: y}, path, "bfloat16")
    assert "no output of float32" in alone
    assert inference.choose({"a": lambda: lambda: y}, path, "float32")[0] == "a"
    near = y + np.float32(0.01)
    assert inference.choose({"b": lambda: lambda: near}, path, "bfloat16")[0] == "b"
    assert "off by 1.0e-02" in inference.choose({"b": lambda: lambda: near}, path, "float32")
    assert "off by 1.0e+00" in inference.choose({"b": lambda: lambda: y + 1}, path, "bfloat16")


def test_bfloat16_of_any_library_becomes_float32(inference):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    half = np.array([1.5, -2], ml_dtypes.bfloat16)
    assert inference.networks.as_array(half).dtype == np.float32
    np.testing.assert_array_equal(inference.networks.as_array(half), [1.5, -2])


def test_a_tensor_of_bfloat16_becomes_float32(inference):
    torch = pytest.importorskip("torch")
    half = torch.tensor([1.5, -2], dtype=torch.bfloat16)
    np.testing.assert_array_equal(inference.networks.as_array(half), [1.5, -2])
