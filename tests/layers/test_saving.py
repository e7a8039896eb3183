"""Files and configs go both ways between Keras' layers and ours, and Keras 2's load."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest

from sepconv import layers

NAMES = ["SeparableConv2D", "DepthwiseConv2D", "SeparableConv1D", "DepthwiseConv1D"]


def sequential(kit, name="sequential_model"):
    return keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            kit.SeparableConv2D(6, 3, strides=2, padding="same", activation="relu"),
            keras.layers.BatchNormalization(),
            kit.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
            keras.layers.Reshape((16, 12)),
            kit.SeparableConv1D(4, 3, activation="tanh"),
            kit.DepthwiseConv1D(3, padding="same"),
            keras.layers.GlobalAveragePooling1D(),
        ],
        name=name,
    )


def functional(kit):
    x = keras.Input((12, 12, 3))
    a = kit.SeparableConv2D(6, 3, padding="same", depthwise_regularizer="l2")(x)
    b = kit.DepthwiseConv2D(5, padding="same", depth_multiplier=2)(x)
    y = keras.layers.GlobalMaxPooling2D()(keras.layers.add([a, b]))
    return keras.Model(x, y)


def nested(kit):
    x = keras.Input((2, 12, 12, 3))
    y = keras.layers.TimeDistributed(sequential(kit))(x)
    z = keras.layers.TimeDistributed(kit.SeparableConv2D(2, 3))(x)
    z = keras.layers.GlobalAveragePooling3D()(z)
    y = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling1D()(y), z])
    inner = functional(kit)
    w = inner(keras.layers.Lambda(lambda t: t[:, 0], output_shape=(12, 12, 3))(x))
    return keras.Model(x, keras.layers.Concatenate()([y, w]))


MODELS = [sequential, functional, nested]


def predict(model):
    shape = model.input_shape[1:]
    return model.predict(np.random.default_rng(3).random((2, *shape), "float32"), verbose=0)


def randomize(model):
    rng = np.random.default_rng(7)
    model.set_weights([rng.normal(0.3, 0.2, w.shape) ** 2 for w in model.get_weights()])
    return model


def kits_used(model):
    """Where the convolutions of a model and of all in it come from."""
    names = set()
    for layer in model._flatten_layers():
        if type(layer).__name__ in NAMES:
            names.add(type(layer).__module__.split(".")[0])
    return names


def same(a, b):
    np.testing.assert_allclose(predict(a), predict(b), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", MODELS)
def test_keras_file_of_stock_to_ours_to_stock(build, tmp_path):
    stock = randomize(build(keras.layers))
    stock.save(tmp_path / "stock.keras")
    ours = layers.load_model(tmp_path / "stock.keras", safe_mode=False)
    assert kits_used(ours) == {"sepconv"}
    same(ours, stock)

    ours.save(tmp_path / "ours.keras")
    again = keras.models.load_model(tmp_path / "ours.keras", safe_mode=False)
    assert kits_used(again) == {"sepconv"}
    same(again, stock)

    back = keras.models.load_model(
        tmp_path / "ours.keras", custom_objects=layers.stock_objects(), safe_mode=False
    )
    assert kits_used(back) == {"keras"}
    same(back, stock)


@pytest.mark.parametrize("build", [sequential, functional])
def test_h5_file_of_stock_to_ours_to_stock(build, tmp_path):
    stock = randomize(build(keras.layers))
    stock.save(tmp_path / "stock.h5")
    for ours in (
        layers.load_model(tmp_path / "stock.h5"),
        keras.models.load_model(tmp_path / "stock.h5", custom_objects=layers.custom_objects()),
    ):
        assert kits_used(ours) == {"sepconv"}
        same(ours, stock)
    ours.save(tmp_path / "ours.h5")
    again = keras.models.load_model(tmp_path / "ours.h5")
    assert kits_used(again) == {"sepconv"}
    back = keras.models.load_model(tmp_path / "ours.h5", custom_objects=layers.stock_objects())
    assert kits_used(back) == {"keras"}
    same(back, stock)


@pytest.mark.parametrize("build", MODELS)
@pytest.mark.parametrize(("source", "target"), [(keras.layers, layers), (layers, keras.layers)])
def test_weights_files_both_ways(build, source, target, tmp_path):
    first = randomize(build(source))
    first.save_weights(tmp_path / "model.weights.h5")
    second = build(target)
    second.load_weights(tmp_path / "model.weights.h5")
    same(first, second)


def test_file_of_ours_loads_where_sepconv_is_not_installed(tmp_path):
    model = randomize(functional(layers))
    model.save(tmp_path / "ours.keras")
    np.save(tmp_path / "y.npy", predict(model))
    code = f"""
import sys
sys.modules["sepconv"] = None
import keras, numpy as np
names = {NAMES}
model = keras.models.load_model({str(tmp_path / "ours.keras")!r}, custom_objects={{
    "sepconv>" + name: getattr(keras.layers, name) for name in names}})
y = model.predict(np.random.default_rng(3).random((2, 12, 12, 3), "float32"), verbose=0)
np.testing.assert_allclose(y, np.load({str(tmp_path / "y.npy")!r}), rtol=1e-4, atol=1e-5)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ), timeout=120)


@pytest.mark.parametrize("imports", ["keras, sepconv", "sepconv, keras", "keras, sepconv.layers"])
def test_file_of_ours_loads_in_a_new_process_after_the_import(imports, tmp_path):
    model = randomize(functional(layers))
    model.save(tmp_path / "ours.keras")
    config = json.dumps(keras.saving.serialize_keras_object(model))
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "pickle").write_bytes(pickle.dumps(model))
    code = f"""
import {imports}, json, pickle
config = json.load(open({str(tmp_path / "config.json")!r}))
for model in (
    keras.models.load_model({str(tmp_path / "ours.keras")!r}),
    keras.saving.deserialize_keras_object(config),
    pickle.load(open({str(tmp_path / "pickle")!r}, "rb")),
):
    assert isinstance(model.layers[1], sepconv.layers.SeparableConv2D), model.layers
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ), timeout=120)


def test_optimizer_state_comes_along(trains, tmp_path):
    stock = functional(keras.layers)
    stock.compile(keras.optimizers.Adam(0.01), "mse")
    x = np.random.default_rng(0).random((4, 12, 12, 3), "float32")
    y = np.ones((4, 6), "float32")
    stock.train_on_batch(x, y)
    stock.save(tmp_path / "stock.keras")
    ours = layers.load_model(tmp_path / "stock.keras")
    assert int(ours.optimizer.iterations) == 1
    for model in (ours, stock):
        model.train_on_batch(x, y)  # not its loss, of which Keras before 3.14 keeps a running mean
    same(ours, stock)


def test_what_keras_has_not_raises_in_keras(tmp_path):
    model = keras.Sequential(
        [keras.Input((8, 4)), layers.SeparableConv1D(2, 3, padding="causal", strides=2)]
    )
    model.save(tmp_path / "ours.keras")
    assert keras.models.load_model(tmp_path / "ours.keras").layers[0].padding == "causal"
    with pytest.raises((TypeError, ValueError), match="padding"):
        keras.models.load_model(tmp_path / "ours.keras", custom_objects=layers.stock_objects())


def test_load_model_refuses_what_it_cannot_read(tmp_path):
    for name in ("missing.keras", "model.pb"):
        with pytest.raises(ValueError, match="filepath"):
            layers.load_model(tmp_path / name)


def test_a_class_registered_by_somebody_else_stays_theirs(tmp_path):
    @keras.saving.register_keras_serializable(package="theirs")
    class SeparableConv2D(keras.layers.SeparableConv2D):
        pass

    keras.Sequential([keras.Input((8, 8, 3)), SeparableConv2D(2, 3)]).save(tmp_path / "m.keras")
    assert type(layers.load_model(tmp_path / "m.keras").layers[0]) is SeparableConv2D


def keras2_config(name, rank):
    """A layer's config as Keras 2.11 wrote it."""
    config = {
        "name": "conv",
        "trainable": True,
        "dtype": "float32",
        "kernel_size": [3] * rank,
        "strides": [1] * rank,
        "padding": "same",
        "data_format": "channels_last",
        "dilation_rate": [1] * rank,
        "groups": 1,
        "activation": "relu",
        "use_bias": True,
        "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
        "bias_initializer": {"class_name": "Zeros", "config": {}},
        "kernel_regularizer": None,
        "bias_regularizer": None,
        "activity_regularizer": None,
        "kernel_constraint": None,
        "bias_constraint": None,
        "depth_multiplier": 2,
        "depthwise_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
        "depthwise_regularizer": {"class_name": "L2", "config": {"l2": 0.01}},
        "depthwise_constraint": None,
    }
    if name.startswith("Separable"):
        config["filters"] = 5
        config["pointwise_initializer"] = {"class_name": "GlorotUniform", "config": {"seed": None}}
        config["pointwise_regularizer"] = None
        config["pointwise_constraint"] = None
    return config


@pytest.mark.parametrize("name", NAMES)
def test_config_of_keras_2(name):
    config = keras2_config(name, int(name[-2]))
    before = copy.deepcopy(config)
    layer = getattr(layers, name).from_config(config)
    assert config == before
    assert layer.activation is keras.activations.relu
    assert layer.depth_multiplier == 2
    assert layer.depthwise_regularizer.l2 == pytest.approx(0.01)


@pytest.mark.parametrize("name", NAMES)
def test_h5_file_of_keras_2(name, tmp_path):
    rank = int(name[-2])
    shape = [None, *[9] * rank, 4]
    config = keras2_config(name, rank) | {"batch_input_shape": shape}
    model_config = {
        "class_name": "Sequential",
        "config": {
            "name": "sequential",
            "layers": [
                {
                    "class_name": "InputLayer",
                    "config": {
                        "batch_input_shape": shape,
                        "dtype": "float32",
                        "sparse": False,
                        "ragged": False,
                        "name": "conv_input",
                    },
                },
                {"class_name": name, "config": config},
            ],
        },
    }
    rng = np.random.default_rng(0)
    if name.startswith("Separable"):
        weights = {
            "depthwise_kernel": rng.random((*[3] * rank, 4, 2)),
            "pointwise_kernel": rng.random((*[1] * rank, 8, 5)),
            "bias": rng.random(5),
        }
    else:
        weights = {"depthwise_kernel": rng.random((*[3] * rank, 4, 2)), "bias": rng.random(8)}
    weights = {key: value.astype("float32") for key, value in weights.items()}
    with h5py.File(tmp_path / "keras2.h5", "w") as file:
        file.attrs["keras_version"] = "2.11.0"
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps(model_config)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"conv"]
        group.attrs["keras_version"] = "2.11.0"
        group.attrs["backend"] = "tensorflow"
        layer_group = group.create_group("conv")
        layer_group.attrs["weight_names"] = [f"conv/{key}:0".encode() for key in weights]
        for key, value in weights.items():
            layer_group[f"conv/{key}:0"] = value

    model = layers.load_model(tmp_path / "keras2.h5")
    assert kits_used(model) == {"sepconv"}
    for weight, value in zip(model.get_weights(), weights.values(), strict=True):
        np.testing.assert_array_equal(weight, value)
    stock = getattr(keras.layers, name)(
        kernel_size=3,
        padding="same",
        depth_multiplier=2,
        activation="relu",
        **({"filters": 5} if name.startswith("Separable") else {}),
    )
    x = rng.random((2, *shape[1:]), "float32")
    stock.build(x.shape)
    stock.set_weights(list(weights.values()))
    expected = keras.ops.convert_to_numpy(stock(x))
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)


def test_clone_copy_and_pickle():
    model = randomize(sequential(layers))
    clone = keras.models.clone_model(model)
    assert kits_used(clone) == {"sepconv"}
    clone.set_weights(model.get_weights())
    same(clone, model)
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert kits_used(twin) == {"sepconv"}
        same(twin, model)
