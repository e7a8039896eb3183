"""The networks that are timed and compared: names, weights, pictures, and how outputs compare."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "GEFFNET",
    "NETWORKS",
    "POLICIES",
    "as_array",
    "calibration",
    "difference",
    "network",
    "pictures",
    "signal",
    "smooth_pictures",
]

#: Networks of keras.applications with depthwise or separable convolutions.
NETWORKS = (
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "MobileNetV3Large",
    "Xception",
    "EfficientNetB0",
    "NASNetMobile",
)

#: Networks of geffnet, in PyTorch.
GEFFNET = (
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "mnasnet_100",
    "efficientnet_b0",
    "efficientnet_lite0",
    "fbnetc_100",
    "spnasnet_100",
    "mixnet_s",
)

#: Keras' policy of the stock network.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}

#: Pictures that int8's scales are found with.
CALIBRATION = 32
#: Networks of these names get numbers of 0 to 255, the others of -1 to 1.
_BYTES = ("EfficientNet", "MobileNetV3")


def network(name: str, size: int, dtype: str = "float32") -> Any:
    """A network with random weights from NumPy: the engines' own generators differ.

    One of geffnet is a PyTorch module, which takes images with the channels last, as all others.
    """
    if name in GEFFNET:
        import torch_networks

        return torch_networks.of_channels_last_images(name)
    import keras

    build = getattr(keras.applications, name)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[dtype])
    try:
        model = build(input_shape=(size, size, 3), weights=None, classifier_activation=None)
    finally:
        keras.config.set_dtype_policy(before)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            count = layer.moving_mean.shape[0]
            weights = [rng.uniform(0.5, 1.5, count)] if layer.scale else []
            weights += [rng.normal(0, 0.3, count)] if layer.center else []
            weights += [rng.normal(0, 0.3, count), rng.uniform(0.5, 1.5, count)]
            layer.set_weights(weights)
        elif not isinstance(layer, keras.layers.Normalization):
            layer.set_weights([_like(rng, w) for w in layer.get_weights()])
    return model


def _like(rng: np.random.Generator, weight: np.ndarray) -> np.ndarray:
    """A bias, or a kernel that preserves the scale of its input."""
    if weight.ndim < 2:
        return rng.normal(0, 0.1, weight.shape)
    # The last axes of a depthwise kernel are channels and multiplier: a sum over the taps alone.
    depthwise = weight.ndim == 4 and weight.shape[3] == 1
    inputs = np.prod(weight.shape[:2]) if depthwise else weight.size / weight.shape[-1]
    return rng.normal(0, np.sqrt(2 / inputs), weight.shape)


def pictures(size: int, batch: int = 1) -> np.ndarray:
    """The input: images that differ."""
    pixels = np.random.default_rng(1).uniform(0, 255, (batch, size, size, 3))
    return (pixels / 127.5 - 1).astype("float32")


def smooth_pictures(name: str, size: int, count: int, seed: int) -> np.ndarray:
    """Pictures with large and small shapes, as photographs have them, in a network's own range.

    Scales of int8 are for pictures of one kind: those of `calibration` and of the comparison are.

    Args:
        name: of the network.
        size: of a picture, in pixels.
        count: of pictures.
        seed: which pictures.
    """
    rng = np.random.default_rng(seed)
    pixels = np.zeros((count, size, size, 3))
    for cells, share in ((2, 0.4), (5, 0.3), (16, 0.2), (size, 0.1)):
        rise = _interpolation(size, cells)
        coarse = rng.uniform(-1, 1, (count, cells, cells, 3))
        pixels += share * np.einsum("yi,nijc,xj->nyxc", rise, coarse, rise, optimize=True)
    pixels = np.clip(1.5 * pixels, -1, 1)
    return (127.5 * (pixels + 1) if name.startswith(_BYTES) else pixels).astype("float32")


def _interpolation(size: int, cells: int) -> np.ndarray:
    """The matrix (size, cells) that interpolates a row of cells linearly."""
    places = np.linspace(0, cells - 1, size)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(cells)))


def calibration(name: str, size: int) -> np.ndarray:
    """The pictures that everybody finds the scales of int8 with."""
    return smooth_pictures(name, size, CALIBRATION, seed=2)


def difference(received: Any, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest output."""
    return float(np.abs(as_array(received) - expected).max() / np.abs(expected).max())


def signal(received: Any, expected: np.ndarray) -> float:
    """The signal-to-noise ratio in decibels: mean squares of outputs and of the difference."""
    apart = np.mean(np.square(as_array(received) - expected, dtype=np.float64))
    power = np.mean(np.square(expected, dtype=np.float64))
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(power / apart))


def as_array(y: Any) -> np.ndarray:
    """An engine's result; PyTorch does not hand its bfloat16 to NumPy."""
    if str(getattr(y, "dtype", "")).startswith("torch."):
        y = y.float().numpy()
    return np.array(y).astype("float32")
