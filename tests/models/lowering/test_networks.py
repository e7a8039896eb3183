"""Whole networks, lowered: the reference predicts what Keras predicts."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from sepconv.models.lowering import lower
from sepconv.program import reference, shapes


def randomized(model, seed=0):
    """The model with statistics of batch normalization that change something."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers(recursive=True, include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            n = layer.moving_mean.shape[0]
            weights = [rng.uniform(0.5, 1.5, n)] if layer.scale else []
            weights += [rng.normal(0, 0.3, n)] if layer.center else []
            layer.set_weights([*weights, rng.normal(0, 0.3, n), rng.uniform(0.5, 1.5, n)])
    return model


def check(model, x):
    """Holds the reference against Keras, and the shapes that are expected against real ones."""
    expected = keras.tree.flatten(model.predict_on_batch(x))
    network = lower(model)
    values = reference.values(network, *keras.tree.flatten(x))
    for number, want in zip(network.outputs, expected, strict=True):
        assert values[number].shape == want.shape
        assert np.abs(values[number] - want).max() <= 1e-5 * np.abs(want).max()
    for shape, value in zip(shapes.shapes(network), values, strict=True):
        assert len(shape) == value.ndim
        assert all(size in (None, n) for size, n in zip(shape, value.shape, strict=True))
    return network


@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV2", "MobileNetV3Small"])
def test_networks(name):
    make = getattr(keras.applications, name)
    model = randomized(make(weights=None, input_shape=(32, 32, 3), classes=5))
    x = np.random.default_rng(0).uniform(0, 1, (2, 32, 32, 3)).astype("float32")
    network = check(model, 255 * x if "V3" in name else x)
    assert "scale" not in [step.operation for step in network.steps]
