"""Keras' DepthwiseConv2D, computed by sepconv."""

from __future__ import annotations

from typing import Any

import keras

from sepconv.layers.base import DepthwiseMixin

__all__ = ["DepthwiseConv2D"]


@keras.saving.register_keras_serializable(package="sepconv")
class DepthwiseConv2D(DepthwiseMixin, keras.layers.DepthwiseConv2D):
    """Two-dimensional convolution of every channel by itself.

    Everything but the computation is as in `keras.layers.DepthwiseConv2D`: arguments, weights and
    their names, config and files. Beyond Keras' own, on every engine:

    - `strides` may differ between the axes, and may be combined with a `dilation_rate`;
    - `padding` may be ``((top, bottom), (left, right))``;
    - an input that the kernel does not fit into raises a ValueError, also once the layer is built.

    Args:
        kernel_size: (height, width) of the depthwise kernel, or one integer for both.
        strides: a positive integer, or two: (height, width). They may differ.
        padding: ``"valid"`` (none), ``"same"`` (an output of ``ceil(size / stride)``) or
            ``((top, bottom), (left, right))``.
        depth_multiplier: the number of depthwise outputs of every input channel.
        data_format: ``"channels_last"``, ``"channels_first"``, or None for the `image_data_format`
            of Keras' config file.
        dilation_rate: a positive integer, or two.
        activation: applied last; None for none. ``"relu"`` and ``"relu6"`` are applied to sums in
            registers, without a pass over memory.
        use_bias: whether a bias is added.
        depthwise_initializer: initializer of the depthwise kernel.
        bias_initializer: initializer of the bias.
        depthwise_regularizer: regularizer of the depthwise kernel, or None.
        bias_regularizer: regularizer of the bias, or None.
        activity_regularizer: regularizer of the output, or None.
        depthwise_constraint: constraint on the depthwise kernel, or None.
        bias_constraint: constraint on the bias, or None.
        **kwargs: `name`, `trainable`, `dtype` and what else `keras.layers.Layer` takes.

    Input shape:
        - ``"channels_last"``: `(batch, height, width, channels)`
        - ``"channels_first"``: `(batch, channels, height, width)`

        of a floating dtype, which is cast to the layer's compute dtype.

    Output shape:
        - ``"channels_last"``: `(batch, new_height, new_width, channels * depth_multiplier)`
        - ``"channels_first"``: `(batch, channels * depth_multiplier, new_height, new_width)`

    Raises:
        ValueError: an argument is out of range, the input's shape does not fit the layer, or the
            output would be empty.
        TypeError: a size is no integer, or the input is not of a floating dtype.

    Example:
        >>> import numpy as np
        >>> x = np.random.rand(2, 10, 10, 4).astype("float32")
        >>> y = DepthwiseConv2D(3, strides=(2, 1), padding=((1, 1), (1, 1)), depth_multiplier=2)(x)
        >>> tuple(y.shape)
        (2, 5, 10, 8)
    """

    _rank = 2
    _stock = keras.layers.DepthwiseConv2D

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = (1, 1),
        padding: Any = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: int | tuple[int, int] = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            depth_multiplier=depth_multiplier,
            data_format=data_format,
            dilation_rate=dilation_rate,
            activation=activation,
            use_bias=use_bias,
            depthwise_initializer=depthwise_initializer,
            bias_initializer=bias_initializer,
            depthwise_regularizer=depthwise_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            depthwise_constraint=depthwise_constraint,
            bias_constraint=bias_constraint,
            **kwargs,
        )
