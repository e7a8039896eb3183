"""EfficientNet-Lite0 of plain Keras layers, and its weights from a PyTorch checkpoint.

Source: Tan and Le, EfficientNet, 2019, https://arxiv.org/abs/1905.11946; the Lite variant, without
squeeze-and-excitation and with ReLU6, is Google's of 2020.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

__all__ = ["SIZE", "build", "load_weights"]

#: Height and width of the pictures.
SIZE = 224

#: (kernel, stride, expansion, channels, repeats) of each stage.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def build() -> keras.Model:
    """The network with random weights: pictures (n, 224, 224, 3) to probabilities (n, 1000)."""
    inputs = keras.Input((SIZE, SIZE, 3))
    x = _relu6(_norm(_conv(inputs, 32, "conv_stem", kernel=3, stride=2), "bn0"))
    channels, number = 32, 0
    for kernel, stride, expansion, outputs, repeats in _STAGES:
        for repeat in range(repeats):
            step = stride if repeat == 0 else 1
            x = _block(x, f"blocks.{number}.", kernel, step, expansion * channels, outputs)
            channels, number = outputs, number + 1
    x = _relu6(_norm(_conv(x, 1280, "conv_head"), "bn1"))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    x = layers.Dense(1000, activation="softmax", name="fc")(x)
    return keras.Model(inputs, x, name="efficientnet_lite0")


def _block(x: Any, name: str, kernel: int, stride: int, middle: int, outputs: int) -> Any:
    """An inverted residual: 1x1 to more channels, depthwise, 1x1 to fewer, plus the input."""
    inputs = x
    if middle != x.shape[-1]:
        x = _relu6(_norm(_conv(x, middle, f"{name}expand_conv"), f"{name}bn0"))
    x = layers.DepthwiseConv2D(
        kernel, stride, padding="same", use_bias=False, name=_keras_name(f"{name}depthwise_conv")
    )(x)
    x = _relu6(_norm(x, f"{name}bn1"))
    x = _norm(_conv(x, outputs, f"{name}project_conv"), f"{name}bn2")
    return layers.Add()([x, inputs]) if stride == 1 and outputs == inputs.shape[-1] else x


def _conv(x: Any, filters: int, name: str, kernel: int = 1, stride: int = 1) -> Any:
    return layers.Conv2D(
        filters, kernel, stride, padding="same", use_bias=False, name=_keras_name(name)
    )(x)


def _norm(x: Any, name: str) -> Any:
    return layers.BatchNormalization(epsilon=1e-3, name=_keras_name(name))(x)


def _relu6(x: Any) -> Any:
    return layers.ReLU(6.0)(x)


def _keras_name(name: str) -> str:
    """A layer's name; the checkpoint's `_blocks.3._bn1` is `blocks_3_bn1` here."""
    return name.replace("._", "_").replace(".", "_").lstrip("_")


def load_weights(model: keras.Model, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    """Sets all weights of the network from a checkpoint's tensors, and uses all of those.

    Raises:
        ValueError: the checkpoint is of another network.
    """
    left = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(_weights(layer, left))
    if left:
        raise ValueError(f"the network has no place for {', '.join(left)}")


def _weights(layer: Any, tensors: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """Takes a layer's tensors out of the dictionary, in Keras' order of weights and of axes."""
    found = {}
    for name in [name for name in tensors if _keras_name(name.rpartition(".")[0]) == layer.name]:
        found[name.rpartition(".")[2]] = tensors.pop(name)
    try:
        if isinstance(layer, layers.BatchNormalization):
            return [found[name] for name in ("weight", "bias", "running_mean", "running_var")]
        if isinstance(layer, layers.Dense):
            return [found["weight"].T, found["bias"]]
        # (outputs, inputs, height, width), where a depthwise kernel has one input.
        axes = (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)
        return [found["weight"].transpose(axes)]
    except KeyError as error:
        raise ValueError(f"the checkpoint has no {error} of {layer.name}") from error
