"""`FusedConv2D` as a Keras layer: shapes that do not fit, ordinary convolutions, older files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from sepconv import layers, reference

KINDS = (
    {"filters": 5, "kernel_size": 3},
    {"filters": 5},
    {"kernel_size": 3},
    {"filters": 5, "kernel_size": 3, "depth_multiplier": None},
)
#: A model that `sepconv.optimize` made of an ordinary convolution, one with a residual and a
#: separable one, when it still wrote the first two as separable ones; and an input and its output.
OLD = Path(__file__).with_name("data") / "ordinary_as_separable"


@pytest.mark.parametrize("arguments", KINDS)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_channels_must_be_known(arguments, data_format):
    layer = layers.FusedConv2D(**arguments, data_format=data_format, name="block_7")
    shape = (None, 8, 8, None) if data_format == "channels_last" else (None, None, 8, 8)
    for call in (
        lambda: layer.compute_output_spec(keras.KerasTensor(shape)),
        lambda: layer.compute_output_shape(shape),
        lambda: layer.build(shape),
        lambda: layer(keras.KerasTensor(shape)),
    ):
        with pytest.raises(ValueError, match="number of channels of the inputs of 'block_7'"):
            call()


@pytest.mark.parametrize("arguments", KINDS)
def test_there_must_be_four_axes(arguments):
    layer = layers.FusedConv2D(**arguments, name="block_7")
    for call in (layer.compute_output_shape, layer.build):
        with pytest.raises(ValueError, match="'block_7' must have 4 axes"):
            call((None, 8, 4))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_an_ordinary_convolution(data_format):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 7, 6, 3)).astype("float32")
    options = {"strides": 2, "padding": "same", "data_format": data_format}
    if data_format == "channels_first":
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    layer = layers.FusedConv2D(5, (3, 2), depth_multiplier=None, activation="relu", **options)
    assert tuple(layer.compute_output_shape(x.shape)) == tuple(layer(x).shape)
    assert [tuple(w.shape) for w in layer.weights] == [(3, 2, 3, 5), (5,)]
    kernel, bias = rng.standard_normal((3, 2, 3, 5)), rng.standard_normal(5)
    layer.set_weights([kernel, bias])
    expected = reference.fused_conv2d(x, None, kernel, bias=bias, activation="relu", **options)
    copy = layers.FusedConv2D.from_config(layer.get_config())
    copy.build(x.shape)
    copy.set_weights(layer.get_weights())
    for received in (layer(x), copy(x)):
        received = keras.ops.convert_to_numpy(received)
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)


def test_an_ordinary_convolution_trains():
    x = np.random.default_rng(0).standard_normal((8, 6, 6, 2)).astype("float32")
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), layers.FusedConv2D(3, 3, depth_multiplier=None, dilation_rate=2)]
    )
    model.compile(keras.optimizers.SGD(0.05), "mse")
    target = np.ones((8, 2, 2, 3), "float32")
    first = model.evaluate(x, target, verbose=0)
    model.fit(x, target, epochs=5, verbose=0)
    assert model.evaluate(x, target, verbose=0) < 0.8 * first


def test_what_an_ordinary_convolution_has_not():
    for arguments in ({"filters": 5}, {"kernel_size": 3}):
        with pytest.raises(ValueError, match="depth_multiplier=None is for an ordinary"):
            layers.FusedConv2D(**arguments, depth_multiplier=None)
    for arguments in ({"depthwise_use_bias": True}, {"depthwise_activation": "relu"}):
        with pytest.raises(ValueError, match="a depthwise convolution that a 1x1"):
            layers.FusedConv2D(5, 3, depth_multiplier=None, **arguments)


def test_a_file_with_an_ordinary_convolution_as_a_separable_one(tmp_path):
    model, data = keras.models.load_model(OLD.with_suffix(".keras")), np.load(f"{OLD}.npz")
    stem, mix, separable = model.layers[1:]
    assert [layer.depth_multiplier for layer in model.layers[1:]] == [None, None, 2]
    assert [tuple(w.shape) for w in stem.weights] == [(3, 3, 2, 3), (3,)]
    assert [tuple(w.shape) for w in mix.weights] == [(1, 2, 3, 3)]
    assert [tuple(w.shape) for w in separable.weights] == [(2, 1, 3, 2), (1, 1, 6, 2), (2,)]
    assert all(layer.trainable_weights == layer.weights for layer in model.layers)
    received = keras.ops.convert_to_numpy(model(data["x"]))
    np.testing.assert_allclose(received, data["y"], rtol=1e-4, atol=1e-4)
    model.save(tmp_path / "new.keras")
    again = keras.models.load_model(tmp_path / "new.keras")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(again(data["x"])), received)
    model.compile("sgd", "mse")
    model.fit(data["x"], data["y"], verbose=0)  # its weights are those of the optimizer


def test_older_weights_go_into_a_new_model(tmp_path):
    model, data = keras.models.load_model(OLD.with_suffix(".keras")), np.load(f"{OLD}.npz")
    expected = keras.ops.convert_to_numpy(model(data["x"]))
    new = keras.models.clone_model(model)
    assert new.layers[1].depth_multiplier is None
    with zipfile.ZipFile(OLD.with_suffix(".keras")) as archive:
        archive.extract("model.weights.h5", tmp_path)
    new.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(new(data["x"])), expected)


def test_a_depthwise_kernel_that_nearly_selects_stays(tmp_path):
    layer = layers.FusedConv2D(3, (1, 2), depth_multiplier=2)
    model = keras.Sequential([keras.Input((4, 4, 1)), layer])
    weights = layer.get_weights()
    weights[0][...] = [[[[1, 0]], [[0, 1.5]]]]
    layer.set_weights(weights)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").layers[-1]
    assert again.depth_multiplier == 2
    for a, b in zip(again.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(a, b)
