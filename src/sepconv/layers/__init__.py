"""Keras' depthwise and separable convolutions, computed by sepconv on Keras' current backend.

`Conv2D` is computed by sepconv where it is a depthwise or a 1x1 convolution, and
`BatchNormalization` where it trains.

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

import sepconv.layers.oldest  # noqa: F401  # first: an older Keras lacks what the others import
from sepconv.layers.batch_normalization import BatchNormalization
from sepconv.layers.conv2d import Conv2D
from sepconv.layers.depthwise_conv1d import DepthwiseConv1D
from sepconv.layers.depthwise_conv2d import DepthwiseConv2D
from sepconv.layers.exporting import guard_tensorflow
from sepconv.layers.fused_conv2d import FusedConv2D
from sepconv.layers.program_layer import ProgramLayer
from sepconv.layers.saving import custom_objects, load_model, stock_objects
from sepconv.layers.separable_conv1d import SeparableConv1D
from sepconv.layers.separable_conv2d import SeparableConv2D
from sepconv.layers.trainable_int8 import TrainableInt8

__all__ = [
    "BatchNormalization",
    "Conv2D",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "FusedConv2D",
    "ProgramLayer",
    "SeparableConv1D",
    "SeparableConv2D",
    "TrainableInt8",
    "custom_objects",
    "load_model",
    "stock_objects",
]

guard_tensorflow()
