"""What is written for other runtimes has no operation of ours: files are read without sepconv."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest

import sepconv
from sepconv.models.exports import is_traced_for_export

X = np.random.default_rng(0).standard_normal((2, 10, 10, 8)).astype("float32")
SPEC = keras.InputSpec(shape=(None, 10, 10, 8), dtype="float32")


@pytest.fixture(autouse=True)
def unpatched():
    yield
    sepconv.unpatch_keras()


@pytest.fixture
def model():
    return keras.Sequential(
        [
            keras.Input((10, 10, 8)),
            keras.layers.SeparableConv2D(8, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.DepthwiseConv2D(3, padding="same"),
            keras.layers.Conv2D(16, 1),
        ]
    )


def only(wanted):
    return pytest.mark.skipif(
        keras.backend.backend() != wanted, reason=f"what it writes is {wanted}'s"
    )


def elsewhere(program, folder, expected):
    """Runs a program that computes `y` of `x`, in a process that cannot import sepconv."""
    np.savez(folder / "data.npz", x=X, y=expected)
    code = (
        "import sys; sys.modules['sepconv'] = None\n"
        "import numpy as np; data = np.load('data.npz'); x = data['x']\n"
        f"{program}\n"
        "np.testing.assert_allclose(np.asarray(y), data['y'], rtol=1e-4, atol=1e-5)\n"
    )
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def values(model):
    return keras.ops.convert_to_numpy(model(X))


SERVE = "import tensorflow as tf; loaded = tf.saved_model.load('out'); y = loaded.serve(x)"


# ---- SavedModel


@pytest.mark.parametrize("how", ["tracked", "a lambda", "model.call"])
@only("tensorflow")
def test_an_archive_under_a_patch(how, model, tmp_path):
    expected = values(model)
    sepconv.patch_keras()
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, rtol=1e-4, atol=1e-5)
    archive = keras.export.ExportArchive()
    if how == "tracked":
        archive.track_and_add_endpoint("serve", model, [SPEC])
    elif how == "a lambda":
        archive.add_endpoint("serve", lambda x: model(x, training=False), [SPEC])
    else:
        archive.track(model)
        archive.add_endpoint("serve", model.call, [SPEC])
    archive.write_out(tmp_path / "out", verbose=False)
    elsewhere(SERVE, tmp_path, expected)


@only("tensorflow")
def test_a_saved_model_under_a_patch(model, tmp_path):
    import tensorflow as tf

    class Served(tf.Module):
        def __init__(self):
            self.model = model

        @tf.function(input_signature=[tf.TensorSpec([None, 10, 10, 8])])
        def serve(self, x):
            return self.model(x)

    expected = values(model)
    sepconv.patch_keras()
    model.predict(X, verbose=0)
    tf.saved_model.save(model, tmp_path / "out")
    signature = "(y,) = loaded.signatures['serving_default'](tf.constant(x)).values()"
    elsewhere(SERVE.replace("y = loaded.serve(x)", signature), tmp_path, expected)
    tf.saved_model.save(Served(), tmp_path / "out")
    elsewhere(SERVE, tmp_path, expected)


def called_under_a_patch(model):
    """A module whose function `serve` has been traced with our operations."""
    import tensorflow as tf

    module = tf.Module()
    module.model = model
    module.serve = tf.function(lambda x: model(x))
    sepconv.patch_keras()
    module.serve(X)
    return module


@only("tensorflow")
def test_tensorflow_traces_a_function_anew_when_it_saves_it(model, tmp_path):
    import tensorflow as tf

    expected = values(model)
    module = called_under_a_patch(model)
    tf.saved_model.save(module, tmp_path / "out")
    elsewhere(SERVE, tmp_path, expected)
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", module.serve)
    archive.write_out(tmp_path / "archive", verbose=False)
    elsewhere(SERVE.replace("out", "archive"), tmp_path, expected)


@only("tensorflow")
def test_a_trace_that_was_made_under_a_patch_is_refused(model, tmp_path):
    import tensorflow as tf

    module = called_under_a_patch(model)
    concrete = module.serve.get_concrete_function(tf.TensorSpec([2, 10, 10, 8]))
    message = r"sepconv's operations.* make that function anew.* Received: SepconvForward"
    with pytest.raises(ValueError, match=message):
        tf.saved_model.save(module, tmp_path / "out", signatures=concrete)
    assert os.listdir(tmp_path) == []
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
    with pytest.raises(ValueError, match=message):
        converter.convert()


@only("tensorflow")
def test_what_writes_is_put_back(model):
    from tensorflow.lite.python.lite import TFLiteConverterV2, TFLiteKerasModelConverterV2
    from tensorflow.python.saved_model import save

    owners = (
        *(keras.Model, save, TFLiteConverterV2, TFLiteKerasModelConverterV2),
        type(keras.export.ExportArchive()),
    )
    before = [dict(vars(owner)) for owner in owners]
    sepconv.patch_keras()
    assert [dict(vars(owner)) for owner in owners] != before
    sepconv.unpatch_keras()
    assert [dict(vars(owner)) for owner in owners] == before


@pytest.mark.parametrize("stock", [False, True])
@only("tensorflow")
def test_litert_under_a_patch(stock, model, tmp_path):
    import tensorflow as tf

    interpreters = pytest.importorskip("ai_edge_litert.interpreter")
    expected = values(model)
    sepconv.patch_keras()
    written = sepconv.to_stock(sepconv.accelerate(model).model) if stock else model
    content = tf.lite.TFLiteConverter.from_keras_model(written).convert()
    interpreter = interpreters.Interpreter(model_content=content)
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, X.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, X)
    interpreter.invoke()
    received = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


def written_by(how, model, path):
    import tensorflow as tf

    if how == "tf.saved_model":
        tf.saved_model.save(model, path)
    elif how == "LiteRT":
        tf.lite.TFLiteConverter.from_keras_model(model).convert()
    elif how in ("tf_saved_model", "onnx"):
        model.export(path, format=how, verbose=False)
    else:
        archive = keras.export.ExportArchive()
        archive.add_endpoint("serve", model.__call__, [SPEC])
        archive.write_out(path, verbose=False)


@pytest.mark.parametrize("patched", [False, True])
@pytest.mark.parametrize("how", ["tf.saved_model", "LiteRT", "tf_saved_model", "onnx", "archive"])
@only("tensorflow")
def test_a_model_with_our_layers_is_refused_with_the_cure(how, patched, model, tmp_path):
    if how == "onnx":
        pytest.importorskip("tf2onnx")
    ours, _ = sepconv.accelerate(model)
    values(ours)
    if patched:
        sepconv.patch_keras()
    with pytest.raises(ValueError, match=r"sepconv\.to_stock\(model\)"):
        written_by(how, ours, tmp_path / "out")
    assert os.listdir(tmp_path) == []
    if how == "archive":
        written_by(how, sepconv.to_stock(ours), tmp_path / "out")
        elsewhere(SERVE, tmp_path, values(model))


@only("tensorflow")
def test_a_fused_block_names_another_cure(tmp_path):
    import tensorflow as tf

    block = sepconv.layers.FusedConv2D(4, 3, name="block")
    fused = keras.Sequential([keras.Input((10, 10, 8)), block])
    with pytest.raises(ValueError, match=r"'block'.* that sepconv\.optimize was given"):
        tf.saved_model.save(fused, tmp_path / "out")


@only("tensorflow")
def test_a_checkpoint_has_our_layers(model, tmp_path):
    import tensorflow as tf

    ours, _ = sepconv.accelerate(model)
    expected = values(ours)
    path = tf.train.Checkpoint(model=ours).write(tmp_path / "weights")
    ours.set_weights([0 * weight for weight in ours.get_weights()])
    tf.train.Checkpoint(model=ours).read(path)
    np.testing.assert_array_equal(values(ours), expected)


# ---- PyTorch


@pytest.mark.parametrize("strict", [False, True])
@only("torch")
def test_torch_export_under_a_patch(strict, model, tmp_path):
    import torch

    model.eval()
    expected = values(model)
    with sepconv.patch_keras():
        exported = torch.export.export(model, (torch.tensor(X),), strict=strict)
    torch.export.save(exported, tmp_path / "out.pt2")
    program = "y = torch.export.load('out.pt2').module()(torch.tensor(x)).detach()"
    elsewhere(f"import torch; {program}", tmp_path, expected)


@only("torch")
def test_torchscript_under_a_patch(model, tmp_path):
    import torch

    model.eval()
    expected = values(model)
    with sepconv.patch_keras():
        torch.jit.trace(model, (torch.tensor(X),)).save(tmp_path / "out.pt")
    program = "y = torch.jit.load('out.pt')(torch.tensor(x)).detach()"
    elsewhere(f"import torch; {program}", tmp_path, expected)


@only("torch")
def test_onnx_from_torch_under_a_patch(model, tmp_path):
    import torch

    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    model.eval()
    path = str(tmp_path / "out.onnx")
    with sepconv.patch_keras():
        torch.onnx.export(model, (torch.tensor(X),), path, dynamo=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (received,) = session.run(None, {session.get_inputs()[0].name: X})
    np.testing.assert_allclose(received, values(model), rtol=1e-4, atol=1e-5)


# ---- JAX


@pytest.mark.parametrize("compiled", [False, True])
@only("jax")
def test_jax_export_under_a_patch(compiled, model, tmp_path):
    """Also of a function that was compiled with our operations before."""
    import jax
    import jax.export

    pytest.importorskip("flatbuffers")  # JAX writes with it what it exports
    expected = values(model)
    function = jax.jit(lambda x: model(x))
    with sepconv.patch_keras():
        if compiled:
            assert "sepconv" in function.lower(X).compile().as_text()
        exported = jax.export.export(function)(X)
    assert "custom_call @sepconv" not in exported.mlir_module()
    (tmp_path / "out").write_bytes(exported.serialize())
    program = "y = jax.export.deserialize(bytearray(open('out', 'rb').read())).call(x)"
    elsewhere(f"import jax, jax.export; {program}", tmp_path, expected)


@only("jax")
def test_jax_exports_our_operations_without_a_patch():
    """Where somebody says that they may be in it, as they do for their own."""
    import jax
    import jax.export

    check = jax.export.DisabledSafetyCheck.custom_call("sepconv_forward")
    layer = sepconv.layers.DepthwiseConv2D(3)
    layer.build(X.shape)
    function = jax.jit(lambda x: layer(x))
    with sepconv.patch_keras():
        jax.export.export(function)(X)
    jax.clear_caches()
    exported = jax.export.export(function, disabled_checks=[check])(X)
    assert "custom_call @sepconv_forward" in exported.mlir_module()


@only("jax")
def test_an_archive_from_jax_under_a_patch(model, tmp_path):
    pytest.importorskip("tensorflow")
    pytest.importorskip("flatbuffers")
    expected = values(model)
    sepconv.patch_keras()
    archive = keras.export.ExportArchive()
    archive.track_and_add_endpoint("serve", model, [SPEC])
    archive.write_out(tmp_path / "out", verbose=False)
    elsewhere(SERVE, tmp_path, expected)


# ---- all


def test_nothing_is_exported_most_of_the_time():
    assert not is_traced_for_export()


def test_a_thread_predicts_while_another_exports(model, monkeypatch):
    """Each a model of its own, since JAX gives a model's buffers away while it predicts."""
    expected, stop, results = values(model), threading.Event(), []
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    monkeypatch.setattr(keras.Model, "export", lambda self: results.append(values(self)))

    def predict():
        try:
            while not stop.is_set():
                results.append(model.predict_on_batch(X))
        except Exception as error:
            results.append(error)

    with sepconv.patch_keras():
        thread = threading.Thread(target=predict)
        thread.start()
        try:
            for _ in range(5):
                other.export()
        finally:
            stop.set()
            thread.join()
    assert len(results) > 5
    for result in results:
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
