"""Networks that mostly consist of depthwise and 1x1 convolutions, and copies of them on sepconv."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = [
    "MODELS",
    "Workload",
    "eegnet",
    "efficientnetb0",
    "mobilenet",
    "with_sepconv",
    "xception",
]


class Workload(NamedTuple):
    """A network and the size of its training step.

    Attributes:
        build: makes the network, of Keras' own layers.
        batch: examples a step.
        shape: of one example.
        classes: the number of outputs, logits.
    """

    build: Callable[[], Any]
    batch: int
    shape: tuple[int, ...]
    classes: int


def eegnet(electrodes: int = 64, samples: int = 256, classes: int = 4, dropout: float = 0.5) -> Any:
    """EEGNet-8,2, which classifies electroencephalograms.

    Args:
        electrodes: rows of an example.
        samples: its columns, over time.
        classes: the number of outputs (logits).
        dropout: the rate after each block.

    Source: Lawhern et al., EEGNet, 2018, https://arxiv.org/abs/1611.08024
    """
    from keras import Input, Model, layers

    inputs = Input((electrodes, samples, 1))
    x = layers.Conv2D(8, (1, 64), padding="same", use_bias=False)(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D((electrodes, 1), depth_multiplier=2, use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("elu")(x)
    x = layers.AveragePooling2D((1, 4))(x)
    x = layers.Dropout(dropout)(x)
    x = layers.SeparableConv2D(16, (1, 16), padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("elu")(x)
    x = layers.AveragePooling2D((1, 8))(x)
    x = layers.Dropout(dropout)(x)
    return Model(inputs, layers.Dense(classes)(layers.Flatten()(x)))


def mobilenet(
    size: int = 128, classes: int = 1000, alpha: float = 1.0, dropout: float = 1e-3
) -> Any:
    """Keras' own MobileNet, with random weights.

    Args:
        size: height and width of the pictures.
        classes: the number of outputs (logits).
        alpha: the width of the network, relative to the published one.
        dropout: the rate before the last layer.

    Source: Howard et al., MobileNets, 2017, https://arxiv.org/abs/1704.04861
    """
    return _application("MobileNet", size, classes, alpha=alpha, dropout=dropout)


def xception(size: int = 128, classes: int = 1000) -> Any:
    """Keras' own Xception, with random weights.

    Args:
        size: height and width of the pictures.
        classes: the number of outputs (logits).

    Source: Chollet, Xception, 2017, https://arxiv.org/abs/1610.02357
    """
    return _application("Xception", size, classes)


def efficientnetb0(size: int = 128, classes: int = 1000) -> Any:
    """Keras' own EfficientNetB0, with random weights.

    Args:
        size: height and width of the pictures.
        classes: the number of outputs (logits).

    Source: Tan and Le, EfficientNet, 2019, https://arxiv.org/abs/1905.11946
    """
    return _application("EfficientNetB0", size, classes)


def _application(name: str, size: int, classes: int, **options: Any) -> Any:
    import keras

    return getattr(keras.applications, name)(
        input_shape=(size, size, 3),
        weights=None,
        classes=classes,
        classifier_activation=None,
        **options,
    )


def with_sepconv(model: Any) -> Any:
    """A copy of a network with its weights, computed by sepconv where it has kernels.

    Args:
        model: a functional or sequential Keras model; it stays as it is.
    """
    from sepconv import accelerate

    return accelerate(model).model


#: Name on the command line -> what one training step of it is.
MODELS = {
    "eegnet": Workload(eegnet, 32, (64, 256, 1), 4),
    "mobilenet": Workload(mobilenet, 8, (128, 128, 3), 1000),
    "xception": Workload(xception, 8, (128, 128, 3), 1000),
    "efficientnetb0": Workload(efficientnetb0, 8, (128, 128, 3), 1000),
}
