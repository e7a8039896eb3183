"""`to_stock` is the inverse of `accelerate`, and its result exports."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers.networks import (
    assert_near,
    functional,
    inputs,
    numbers,
    randomize,
    sequential,
    subclassed,
)
from keras import layers

import sepconv
from sepconv.models.copying import named_layers


@pytest.mark.parametrize("make", [sequential, functional, subclassed])
def test_it_is_the_inverse_of_accelerate(make):
    stock = randomize(make())
    back = sepconv.to_stock(sepconv.accelerate(stock).model)
    for (name, old), (new_name, new) in zip(named_layers(stock), named_layers(back), strict=True):
        assert (new_name, type(new)) == (name, type(old))
        if not isinstance(old, keras.Model):
            assert new.get_config() == old.get_config()
        assert new.supports_jit == old.supports_jit
    for old, new in zip(stock.weights, back.weights, strict=True):
        np.testing.assert_array_equal(new.numpy(), old.numpy())
    assert_near(back(inputs(stock)), stock(inputs(stock)))


def test_training_goes_on():
    model, _ = sepconv.accelerate(sequential())
    model.compile(keras.optimizers.Adam(0.01), "mse")
    x, y = numbers(8, 8, 8, 3), numbers(8, 3, seed=2)
    model.train_on_batch(x, y)
    stock = sepconv.to_stock(model)
    for _ in range(2):
        expected, received = (float(m.train_on_batch(x, y)) for m in (model, stock))
        assert received == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("layer", "shape", "engines"),
    [
        (
            lambda **k: sepconv.layers.DepthwiseConv2D(3, padding=((1, 0), (0, 1)), **k),
            (8, 8, 3),
            (),
        ),
        (lambda **k: sepconv.layers.SeparableConv1D(2, 3, padding="causal", **k), (8, 3), ()),
        (lambda **k: sepconv.layers.SeparableConv2D(2, 3, (1, 2), **k), (8, 8, 3), ("tensorflow",)),
    ],
)
def test_what_keras_cannot_do_is_named(layer, shape, engines, engine):
    if engines and engine not in engines:
        pytest.skip("Keras can, on this engine")
    inner = keras.Sequential([keras.Input(shape), layer(name="conv")], name="inner")
    with pytest.raises(ValueError, match=r"layer 'inner/conv' .* Received: (padding|strides)="):
        sepconv.to_stock(keras.Sequential([keras.Input(shape), inner]))


def test_layers_without_counterpart_are_named():
    class Fused(layers.Layer):
        pass

    Fused.__module__ = "sepconv.layers.fused"
    model = keras.Sequential([keras.Input((3,)), Fused(name="block")])
    with pytest.raises(ValueError, match=r"layer 'block' has no counterpart.* Fused"):
        sepconv.to_stock(model)


EXPORTERS = {"tensorflow": "tf2onnx", "torch": "onnxscript", "jax": "jax2onnx"}


@pytest.mark.parametrize("patched", [False, True])
def test_onnx_runtime_computes_the_same(patched, engine, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip(EXPORTERS[engine])
    model, _ = sepconv.accelerate(randomize(sequential()))
    x = inputs(model, batch=1)
    expected = keras.ops.convert_to_numpy(model(x))
    path = str(tmp_path / "model.onnx")
    stock = sepconv.to_stock(model)
    if patched:
        with sepconv.patch_keras():
            stock.export(path, format="onnx", verbose=False)
    else:
        stock.export(path, format="onnx", verbose=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (received,) = session.run(None, {session.get_inputs()[0].name: x})
    assert_near(received, expected)


def test_litert_computes_the_same(engine, tmp_path):
    interpreters = pytest.importorskip("ai_edge_litert.interpreter")
    if engine == "jax":
        pytest.skip("Keras exports to LiteRT from TensorFlow and PyTorch")
    if engine == "torch":
        pytest.importorskip("litert_torch")
    model, _ = sepconv.accelerate(randomize(sequential()))
    x = inputs(model, batch=1)
    expected = keras.ops.convert_to_numpy(model(x))
    path = str(tmp_path / "model.tflite")
    sepconv.to_stock(model).export(path, format="litert", verbose=False)
    interpreter = interpreters.Interpreter(path)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    assert_near(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), expected)
