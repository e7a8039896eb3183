"""Keras models on a GPU: our layers and the patch do there what stock Keras does on the CPU."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as stock

import sepconv
from sepconv import layers as ours

ENGINE = keras.backend.backend()


@pytest.fixture(autouse=True)
def unpatched():
    yield
    sepconv.unpatch_keras()


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def network(layers=stock):
    """Every layer that we have one for; ordinary convolutions that are ours among them."""
    return keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.Conv2D(8, 3, padding="same", name="one_channel"),
            layers.BatchNormalization(name="normal"),
            keras.layers.ReLU(6.0),
            layers.DepthwiseConv2D(3, strides=2, padding="same", name="depthwise"),
            layers.Conv2D(16, 1, name="pointwise"),
            layers.SeparableConv2D(8, 3, depth_multiplier=2, activation="relu", name="separable"),
            keras.layers.Reshape((16, 8)),
            layers.DepthwiseConv1D(3, padding="same", name="depthwise_1d"),
            layers.SeparableConv1D(6, 3, name="separable_1d"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(3, name="classes"),
        ]
    )


def weights():
    """Of `network`, the same each time."""
    with keras.device("cpu"):
        shapes = [(w.path, tuple(w.shape)) for w in network().weights]
    values = []
    for seed, (path, shape) in enumerate(shapes):
        value = 0.5 * numbers(*shape, seed=seed)
        values.append(np.abs(value) + 0.5 if "variance" in path else value)
    return values


X = numbers(4, 12, 12, 1, seed=50)
Y = np.array([0, 1, 2, 1])


@pytest.fixture(scope="module")
def expected():
    """What stock Keras predicts on the CPU, and its weights after three steps of training."""
    with keras.device("cpu"):
        model = network()
        model.set_weights(weights())
        return model.predict_on_batch(X), trained(model)


def trained(model):
    """The weights after three steps."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss)
    for _ in range(3):
        model.train_on_batch(X, Y)
    return [np.array(w) for w in model.get_weights()]


def check(device, model, expected):
    """A model predicts and learns what the stock one does, on its device."""
    predictions, learned = expected
    assert all(device.holds(w.value) for w in model.trainable_weights)
    assert device.holds(model(keras.ops.convert_to_tensor(X), training=False))
    near(model.predict_on_batch(X), predictions, 1e-5)
    before = [np.array(w) for w in model.get_weights()]
    after = trained(model)
    for start, found, right in zip(before, after, learned, strict=True):
        # What was learned, not what was there before: that is most of a weight.
        near(found - start, right - start, 2e-3)
        near(found, right, 1e-5)


def near(found, right, tolerance):
    difference = np.linalg.norm(np.asarray(found, "float64") - right)
    assert difference <= tolerance * np.linalg.norm(right) + 1e-7


def test_our_layers(device, expected):
    with keras.device(device.keras):
        model = network(ours)
        model.set_weights(weights())
        check(device, model, expected)


def test_patched_keras(device, expected):
    with keras.device(device.keras):
        model = network()
        model.set_weights(weights())
        with sepconv.patch_keras():
            check(device, model, expected)


def test_an_accelerated_model(device, expected):
    with keras.device(device.keras):
        model = network()
        model.set_weights(weights())
        fast, record = sepconv.accelerate(model)
        assert record.changed >= 4
        check(device, fast, expected)


def test_an_optimized_model(device, expected):
    with keras.device(device.keras):
        model = network()
        model.set_weights(weights())
        served, record = sepconv.optimize(model)
        assert record.changed >= 2
        assert device.holds(served(keras.ops.convert_to_tensor(X)))
        near(served.predict_on_batch(X), expected[0], 1e-5)


def test_a_saved_model_moves_to_the_device(device, expected, tmp_path):
    with keras.device("cpu"):
        model = network(ours)
        model.set_weights(weights())
        model.save(tmp_path / "model.keras")
    with keras.device(device.keras):
        check(device, keras.models.load_model(tmp_path / "model.keras"), expected)
