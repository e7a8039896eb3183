"""Networks for `sepconv.optimize`, and what holds an optimized one against its original."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers as L  # noqa: N812

import sepconv

__all__ = ["X", "check", "functional", "kinds", "predictions", "randomised"]

X = np.random.default_rng(0).normal(size=(2, 12, 12, 8)).astype("float32")


def randomised(model, seed=0):
    """The model with batch normalisation that does something, and biases that are not zero."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            randomised(layer, seed + 1)
        elif isinstance(layer, L.BatchNormalization):
            n = layer.moving_mean.shape[0]
            weights = [rng.uniform(0.5, 1.5, n)] if layer.scale else []
            weights += [rng.normal(0, 0.3, n)] if layer.center else []
            layer.set_weights([*weights, rng.normal(0, 0.3, n), rng.uniform(0.5, 1.5, n)])
        else:
            layer.set_weights([w + rng.normal(0, 0.05, w.shape) for w in layer.get_weights()])
    return model


def predictions(model, x):
    """A model's outputs as arrays; compiled, since JAX takes seconds for a model op by op."""
    return keras.tree.flatten(model.predict_on_batch(x))


def kinds(model):
    return [type(layer).__name__ for layer in model.layers if type(layer) is not L.InputLayer]


def check(model, x=X, fused=None):
    """Optimizes, and holds outputs, names and weights against the original; returns both parts."""
    randomised(model)
    before = [w.copy() for w in model.get_weights()]
    expected = predictions(model, x)
    optimized, record = sepconv.optimize(model)
    received = predictions(optimized, x)
    for a, b in zip(expected, received, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()
    names = getattr(model, "output_names", [model.layers[-1].name])
    assert optimized.output_names == names
    assert optimized.name == model.name
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    if fused is not None:
        assert kinds(optimized) == fused
    return optimized, record


def functional(build, shape=(12, 12, 8)):
    inputs = keras.Input(shape)
    return keras.Model(inputs, build(inputs), name="net")
