"""Every kind of network of keras.applications, lowered and computed by the reference: a line each.

KERAS_BACKEND=torch python tests/stress/networks.py                 all that the engine has
KERAS_BACKEND=torch python tests/stress/networks.py ResNet50 VGG16  some
"""

from __future__ import annotations

import sys

import keras
import numpy as np

from sepconv.models.lowering import lower
from sepconv.program import reference

#: Networks, and the size of their images.
NETWORKS = {
    "MobileNet": 64,
    "MobileNetV2": 64,
    "MobileNetV3Small": 64,
    "MobileNetV3Large": 64,
    "Xception": 71,
    "EfficientNetB0": 64,
    "EfficientNetV2B0": 64,
    "NASNetMobile": 64,
    "ConvNeXtTiny": 64,
    "ResNet50": 64,
    "ResNet50V2": 64,
    "DenseNet121": 64,
    "InceptionV3": 96,
    "InceptionResNetV2": 96,
    "VGG16": 32,
}

#: What rounding may change, of the largest output.
MOST = 1e-5


def with_statistics(model: keras.Model) -> keras.Model:
    """The model with statistics of batch normalization as after training, near those before.

    Farther ones make networks that amplify rounding a million times, which no trained one does.
    """
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers(recursive=True, include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            n = layer.moving_mean.shape[0]
            weights = [rng.uniform(0.8, 1.2, n)] if layer.scale else []
            weights += [rng.normal(0, 0.1, n)] if layer.center else []
            layer.set_weights([*weights, rng.normal(0, 0.1, n), rng.uniform(0.8, 1.2, n)])
    return model


def check(name: str) -> None:
    """Prints how far the reference is from Keras."""
    size = NETWORKS[name]
    make = getattr(keras.applications, name)
    options = {"weights": None, "classes": 10, "classifier_activation": None}
    model = with_statistics(make(input_shape=(size, size, 3), **options))
    x = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("float32")
    expected = model.predict_on_batch(x)
    network = lower(model)
    (y,) = reference.run(network, x)
    apart = np.abs(y - expected).max() / np.abs(expected).max()
    print(f"{name:18} {len(network.steps):4} steps, {apart:.1e} apart", flush=True)
    if not apart <= MOST:
        raise SystemExit(f"{name} is too far from Keras.")


if __name__ == "__main__":
    unavailable = {"NASNetMobile"} if keras.backend.backend() == "torch" else set()
    for name in sys.argv[1:] or [name for name in NETWORKS if name not in unavailable]:
        check(name)
