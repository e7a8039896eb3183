"""benchmarks/inference.py in bfloat16: who takes part, and whose outputs count."""

import importlib
import types

import numpy as np
import pytest
from helpers import scripts


@pytest.fixture(scope="module")
def inference():
    with scripts.importable(scripts.BENCHMARKS):
        yield importlib.import_module("inference")


def test_those_without_bfloat16_are_named_and_left_out(inference, capsys):
    who = inference.with_narrow(["keras-jax", "openvino", "litert"], "bfloat16")
    assert who == ["keras-jax", "openvino", "keras-jax-bfloat16", "openvino-bfloat16"]
    assert "litert does not compute in bfloat16, so it is left out" in capsys.readouterr().out
    assert [inference.dtype_of(one) for one in who] == ["float32"] * 2 + ["bfloat16"] * 2
    files = {name for one in inference.RUNTIMES for name in inference.RUNTIMES[one]}
    assert files <= set(inference.exports.FILES)


def test_those_without_int8_are_named_with_the_reason(inference, capsys):
    who = inference.with_narrow(["keras-jax", "sepconv-program", "litert", "ncnn"], "int8")
    assert who == ["sepconv-program", "litert", "sepconv-program-int8", "litert-int8"]
    told = capsys.readouterr().out
    assert "keras-jax does not compute in int8, so it is left out\n" in told
    assert "ncnn does not compute in int8, so it is left out: its wheel has no quantiser" in told


def test_a_table_of_int8_has_each_floor_and_the_noise(inference, capsys):
    problem = inference.Problem("MobileNet", 64, 1, 2, "int8")
    assert problem.pictures().shape == (1, 64, 64, 3)
    assert problem.command("--export")[2:5] == ["MobileNet", "--dtype", "int8"]
    team = {
        who: types.SimpleNamespace(seconds=[t] * 5, first={"setting": "called", "signal": signal})
        for who, t, signal in (
            ("sepconv-program", 4e-3, None),
            ("sepconv-program-int8", 2e-3, 31.26),
        )
    }
    inference.show(problem, team, {"float32": 2e-3, "int8": 5e-4})
    told = capsys.readouterr().out
    assert "| multiply-adds at the machine's peak, int8 | 0.50 | | | | | |" in told
    row = "| sepconv-program-int8 | 2.00 | 2.00 to 2.00 | called | 4.00x | 1.00x | 31.3 |"
    assert row in told
    assert "| sepconv-program | 4.00 | 4.00 to 4.00 | called | 2.00x | 2.00x | |" in told
    assert "sepconv-program: float32 / int8: 2.00x" in told


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
