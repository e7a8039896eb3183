"""Small networks with Keras' own depthwise and separable convolutions, of every kind of model."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def sequential():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.SeparableConv2D(4, 3, padding="same", activation="relu", name="separable"),
            layers.BatchNormalization(),
            layers.Dropout(0.3, seed=3),
            layers.DepthwiseConv2D(3, strides=2, name="depthwise"),
            layers.Flatten(),
            layers.Dense(3),
        ],
        name="small",
    )


def functional():
    """Two inputs and outputs; a shared layer, a nested model, a wrapper, a lambda, a function."""
    encoder = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.SeparableConv2D(4, 3, padding="same", name="inner")],
        name="encoder",
    )
    shared = layers.DepthwiseConv2D(3, padding="same", name="shared")
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    a, b = encoder(left), encoder(shared(right))
    a = layers.Lambda(lambda x: keras.ops.sin(x) + SHIFT, name="sine")(a)
    frozen = layers.DepthwiseConv2D(3, padding="same", trainable=False, name="frozen")
    both = layers.Concatenate(name="both")([a, frozen(b), shared(left)])
    rows = layers.TimeDistributed(layers.DepthwiseConv1D(3, name="row"), name="rows")(both)
    blurred = keras.ops.depthwise_conv(rows, np.full((3, 3, 11, 1), 1 / 9, "float32"))
    pooled = layers.GlobalAveragePooling2D(name="pooled")(blurred)
    outputs = {"classes": layers.Dense(3, name="classes")(pooled), "map": b}
    return keras.Model({"left": left, "right": right}, outputs, name="two")


SHIFT = 0.5


class Subclassed(keras.Model):
    """Its layers are in a list and a dict."""

    def __init__(self, filters=4, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.blocks = [layers.SeparableConv2D(filters, 3), layers.DepthwiseConv2D(3)]
        self.head = {"dense": layers.Dense(3)}

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head["dense"](keras.ops.mean(x, (1, 2)))


def subclassed():
    model = Subclassed(5, name="own")
    model(numbers(1, 8, 8, 3))
    return model


def randomize(model, seed=0):
    """Other weights than the initial ones, so that a copy that has not got them differs."""
    random = np.random.default_rng(seed)
    for variable in model.weights:
        values = 0.3 * random.standard_normal(variable.shape)
        variable.assign(np.abs(values) + 0.5 if "variance" in variable.path else values)
    return model


def inputs(model, batch=4):
    shape = (batch, 8, 8, 3)
    if model.name == "two":
        return {"left": numbers(*shape), "right": numbers(*shape, seed=1)}
    return numbers(*shape)


def assert_near(actual, expected, tolerance=1e-5):
    actual, expected = (
        [keras.ops.convert_to_numpy(a).astype("float64") for a in keras.tree.flatten(t)]
        for t in (actual, expected)
    )
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        assert np.linalg.norm(a - e) <= tolerance * np.linalg.norm(e)
