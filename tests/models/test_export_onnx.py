"""`sepconv.export_onnx` of Keras models: ONNX Runtime gives what the int8 network gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import onnx_files
from keras import layers

import sepconv
from sepconv import cli
from sepconv.models import export_command
from sepconv.models import export_onnx as module
from sepconv.models.export_onnx import contents_of
from sepconv.program.network import Network
from sepconv.program.program import Program
from sepconv.quantization.origin import NOTE, origin_of
from sepconv.quantization.ranges import Scale

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def _blocks() -> keras.Model:
    """A small network with all that MobileNets and EfficientNets have."""
    inputs = keras.Input((17, 18, 3), name="picture")
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    y = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.Add()([x, layers.Conv2D(8, 1)(y)])
    y = layers.DepthwiseConv2D(5, strides=2, padding="same", activation="silu")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
    gate = layers.Conv2D(4, 1, activation="silu")(gate)
    y = layers.Multiply()([y, layers.Conv2D(8, 1, activation="sigmoid")(gate)])
    z = layers.Conv2D(5, 3, padding="same", activation="gelu")(x)
    z = layers.MaxPooling2D(2, padding="same")(z)
    x = layers.Concatenate()([y, z])
    x = layers.SeparableConv2D(12, 3, padding="same", activation="hard_silu")(x)
    x = layers.AveragePooling2D(2, 1, "same")(x)
    return keras.Model(inputs, layers.Dense(10, name="classes")(layers.Flatten()(x)))


@pytest.fixture(scope="module")
def quantized() -> tuple[keras.Model, np.ndarray, Network]:
    keras.utils.set_random_seed(0)
    pictures = np.random.default_rng(0).standard_normal((64, 17, 18, 3)).astype("float32")
    model = sepconv.quantize(_blocks(), pictures).model
    return model, pictures, sepconv.compile(model, verify=False).network


def _tensors(model: Any) -> dict[str, np.ndarray]:
    return {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}


def _makers(model: Any) -> dict[str, Any]:
    return {node.output[0]: node for node in model.graph.node}


def test_onnx_runtime_is_within_one_step(quantized, tmp_path: Path) -> None:
    model, pictures, _ = quantized
    path = str(tmp_path / "small.onnx")
    sepconv.export_onnx(model, path)
    expected = model.predict(pictures, verbose=0)
    for optimised in (False, True):
        (found,) = onnx_files.run(path, pictures, optimised=optimised)
        assert found.shape == expected.shape
        assert np.mean(np.abs(found - expected) < 1.5 * _step(expected)) > 0.99


def _step(y: np.ndarray) -> float:
    """What two neighbours of 256 numbers are apart that are as far apart as all of these."""
    return float(np.ptp(y)) / 255


def test_nothing_is_rounded_after_the_last_product(quantized, tmp_path: Path) -> None:
    model, _, network = quantized
    assert network.steps[-1].operation == "dequantized_dense"
    sepconv.export_onnx(model, tmp_path / "small.onnx")
    made = onnx.load(tmp_path / "small.onnx")
    makers = _makers(made)
    (y,) = made.graph.output
    gemm = makers[makers[y.name].input[0]]
    assert gemm.op_type == "Gemm"
    # What a weight's numbers stand for is the scale of the sums over that of the input.
    tensors, (x, weights, _) = _tensors(made), (makers[name] for name in gemm.input)
    scale = network.tensors[network.steps[-1].weights["scale"]]
    apart = tensors[weights.input[1]] * tensors[x.input[1]]
    np.testing.assert_allclose(apart, scale, rtol=1e-6)


def test_every_product_is_between_pairs_of_the_networks_scales(quantized, tmp_path: Path) -> None:
    model, _, _ = quantized
    sepconv.export_onnx(model, tmp_path / "small.onnx")
    made = onnx.load(tmp_path / "small.onnx")
    tensors, makers = _tensors(made), _makers(made)
    products = [node for node in made.graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(products) == 10
    for node in products:
        x, weights, bias = (makers[name] for name in node.input)
        assert {x.op_type, weights.op_type, bias.op_type} == {"DequantizeLinear"}
        assert tensors[x.input[2]].dtype == np.uint8
        assert tensors[weights.input[0]].dtype == np.int8
        assert tensors[bias.input[0]].dtype == np.int32
        scale = tensors[weights.input[1]] * tensors[x.input[1]]
        np.testing.assert_array_equal(tensors[bias.input[1]], scale)
        assert not tensors[weights.input[2]].any()
    # The scales and zero points that the note says, and no others, are those of what is rounded.
    network, notes = contents_of(model)
    roundings = [each for step in origin_of(network, notes, "it") for each in step]
    told = {scale for each in roundings for scale in (each.scale, each.result)}
    rounded = {
        Scale(float(tensors[node.input[1]]), int(tensors[node.input[2]]))
        for node in made.graph.node
        if node.op_type == "QuantizeLinear"
    }
    assert rounded == told
    # Tables are the functions that they are of.
    found = {node.op_type for node in made.graph.node}
    assert {"Sigmoid", "HardSwish", "Erf"} <= found
    assert "Gather" not in found


def test_programs_files_and_modules_are_the_same(quantized, tmp_path: Path) -> None:
    model, _, _ = quantized
    program = sepconv.compile(model, verify=False)
    program.save(tmp_path / "small.sepconv")
    written = []
    for i, source in enumerate((model, program, tmp_path / "small.sepconv")):
        sepconv.export_onnx(source, tmp_path / f"{i}.onnx")
        written.append((tmp_path / f"{i}.onnx").read_bytes())
    assert written[0] == written[1] == written[2]


def test_without_the_note_it_is_what_steps_say(quantized, tmp_path: Path) -> None:
    model, pictures, network = quantized
    path = str(tmp_path / "small.onnx")
    sepconv.export_onnx(Program(network), path)
    expected = model.predict(pictures, verbose=0)
    (found,) = onnx_files.run(path, pictures)
    assert np.mean(np.abs(found - expected) < 1.5 * _step(expected)) > 0.99


def test_a_note_of_another_network_is_refused(quantized, tmp_path: Path) -> None:
    _, _, network = quantized
    with pytest.raises(ValueError, match=r"does not fit its \d+ steps"):
        sepconv.export_onnx(Program(network, notes={NOTE: "[]"}), tmp_path / "small.onnx")
    assert not list(tmp_path.glob("*.onnx"))


def test_a_float_model_is_written_too(tmp_path: Path) -> None:
    model = _blocks()
    pictures = np.random.default_rng(1).standard_normal((3, 17, 18, 3)).astype("float32")
    sepconv.export_onnx(model, tmp_path / "float.onnx")
    (found,) = onnx_files.run(str(tmp_path / "float.onnx"), pictures)
    np.testing.assert_allclose(found, model.predict(pictures, verbose=0), atol=1e-5)


def test_a_block_that_is_kept_is_float(tmp_path: Path) -> None:
    inputs = keras.Input((6, 6, 4))
    x = layers.Conv2D(8, 3, activation="relu", name="first")(inputs)
    x = layers.LayerNormalization()(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Softmax()(layers.Dense(3, name="last")(x)))
    pictures = np.random.default_rng(2).standard_normal((32, 6, 6, 4)).astype("float32")
    small = sepconv.quantize(model, pictures, keep=["first"]).model
    sepconv.export_onnx(small, tmp_path / "kept.onnx")
    (found,) = onnx_files.run(str(tmp_path / "kept.onnx"), pictures)
    np.testing.assert_allclose(found, small.predict(pictures, verbose=0), atol=0.02)
    first = next(n for n in onnx.load(tmp_path / "kept.onnx").graph.node if n.op_type == "Conv")
    made = onnx.load(tmp_path / "kept.onnx")
    assert first.input[1] in _tensors(made)


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 2))
    half = keras.Model(inputs, layers.Conv2D(2, 3, name="narrow")(inputs))
    program = sepconv.compile(half, dtype="bfloat16", verify=False)
    with pytest.raises(ValueError, match=r"cannot be written as ONNX"):
        sepconv.export_onnx(program, tmp_path / "half.onnx")
    double = sepconv.compile(half, dtype="float64", verify=False)
    with pytest.raises(ValueError, match=r"of float32 and int8 networks. Received: float64"):
        sepconv.export_onnx(double, tmp_path / "double.onnx")
    with pytest.raises(TypeError, match="example_inputs are for PyTorch modules"):
        sepconv.export_onnx(half, tmp_path / "a.onnx", np.zeros((1, 8, 8, 2)))
    program = sepconv.compile(half, verify=False)
    program.save(tmp_path / "half.sepconv")
    with pytest.raises(ValueError, match="loaded from a file"):
        sepconv.export_onnx(sepconv.load(tmp_path / "half.sepconv"), tmp_path / "a.onnx")
    assert not list(tmp_path.glob("*.onnx"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install onnx"):
        sepconv.export_onnx(_blocks(), tmp_path / "a.onnx")


# ---- the command


def test_the_command_writes_what_the_function_does(quantized, tmp_path: Path, capsys: Any) -> None:
    model, _, _ = quantized
    model.save(tmp_path / "small.keras")
    sepconv.compile(model, verify=False).save(tmp_path / "small.sepconv")
    sepconv.export_onnx(model, tmp_path / "wanted.onnx")
    for name in ("small.keras", "small.sepconv"):
        target = tmp_path / f"{name}.onnx"
        assert cli.main(["export", str(tmp_path / name), str(target)]) == 0
        said = capsys.readouterr().out
        assert "Written: " in said
        assert "ONNX Runtime's differ by at most" in said
        assert target.read_bytes() == (tmp_path / "wanted.onnx").read_bytes()


def test_the_command_says_what_is_wrong(
    quantized, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, _ = quantized
    source, target = tmp_path / "small.sepconv", tmp_path / "small.onnx"
    sepconv.compile(model, verify=False).save(source)

    def run(*arguments: object) -> tuple[int, str]:
        return cli.main(["export", *map(str, arguments)]), capsys.readouterr().err

    assert run(source, tmp_path / "small.tflite") == (
        2,
        f"sepconv: {tmp_path / 'small.tflite'}: the file to write must end in .onnx\n",
    )
    code, said = run(tmp_path / "none.sepconv", target)
    assert (code, "No such file" in said) == (2, True)
    (tmp_path / "bad.sepconv").write_bytes(b"bad")
    code, said = run(tmp_path / "bad.sepconv", target)
    assert (code, "it is not a program" in said) == (2, True)
    monkeypatch.setattr(export_command, "TOLERANCES", (-1.0, -1.0))
    code, said = run(source, target)
    assert (code, "ONNX Runtime's predictions differ by" in said) == (1, True)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    code, said = run(source, target)
    assert (code, "pip install onnx" in said) == (2, True)
    assert not target.exists()
