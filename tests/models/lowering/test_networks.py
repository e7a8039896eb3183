"""Whole networks, lowered: the reference predicts what Keras predicts."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers.lowering import compare, randomized

#: Networks, and how many steps of each kind they may have at most.
NETWORKS = {
    "MobileNet": {"convolution": 15, "unary": 0, "scale": 0},
    "MobileNetV2": {"convolution": 35, "dense": 1, "binary": 0, "scale": 0},
    "MobileNetV3Small": {"convolution": 52, "unary": 10, "binary": 9, "scale": 0},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    make = getattr(keras.applications, name)
    model = make(weights=None, input_shape=(32, 32, 3), classes=5, classifier_activation=None)
    x = np.random.default_rng(0).uniform(0, 1, (2, 32, 32, 3)).astype("float32")
    network = compare(randomized(model), 255 * x if "V3" in name else x)
    kinds = [step.operation for step in network.steps]
    for kind, most in NETWORKS[name].items():
        assert kinds.count(kind) <= most
