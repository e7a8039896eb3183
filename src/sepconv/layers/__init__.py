"""Keras' depthwise and separable convolutions, computed by sepconv on Keras' backend of the moment.

So are those of its ordinary ones that are depthwise or 1x1 convolutions, see `Conv2D`, and what
trains between them, see `BatchNormalization`.

Example:
    >>> import keras
    >>> from sepconv import layers
    >>> model = keras.Sequential([
    ...     keras.Input((32, 32, 3)),
    ...     layers.SeparableConv2D(8, 3, strides=(2, 1), activation="relu"),
    ...     layers.DepthwiseConv2D(3, padding="same"),
    ... ])
    >>> model.output_shape
    (None, 15, 30, 8)
    >>> isinstance(model.layers[0], keras.layers.SeparableConv2D)
    True
"""

from sepconv.layers.batch_normalization import BatchNormalization
from sepconv.layers.conv2d import Conv2D
from sepconv.layers.depthwise_conv1d import DepthwiseConv1D
from sepconv.layers.depthwise_conv2d import DepthwiseConv2D
from sepconv.layers.exporting import guard_tensorflow
from sepconv.layers.fused_conv2d import FusedConv2D
from sepconv.layers.saving import custom_objects, load_model, stock_objects
from sepconv.layers.separable_conv1d import SeparableConv1D
from sepconv.layers.separable_conv2d import SeparableConv2D

__all__ = [
    "BatchNormalization",
    "Conv2D",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "FusedConv2D",
    "SeparableConv1D",
    "SeparableConv2D",
    "custom_objects",
    "load_model",
    "stock_objects",
]

guard_tensorflow()
