"""Keras' DepthwiseConv1D, computed by sepconv."""

from __future__ import annotations

from typing import Any

import keras

from sepconv.layers.base import DepthwiseMixin

__all__ = ["DepthwiseConv1D"]


@keras.saving.register_keras_serializable(package="sepconv")
class DepthwiseConv1D(DepthwiseMixin, keras.layers.DepthwiseConv1D):
    """One-dimensional convolution of every channel by itself.

    Everything but the computation is as in `keras.layers.DepthwiseConv1D`: arguments, weights and
    their names, config and files. Beyond Keras' own, on every engine:

    - `strides` may be combined with a `dilation_rate`;
    - `padding` may be ``"causal"`` or ``(left, right)``;
    - an input that the kernel does not fit into raises a ValueError, also once the layer is built.

    Args:
        kernel_size: the length of the depthwise kernel.
        strides: a positive integer.
        padding: ``"valid"`` (none), ``"same"`` (an output of ``ceil(size / stride)``), ``"causal"``
            (no output sees a later input) or ``(left, right)``.
        depth_multiplier: the number of depthwise outputs of every input channel.
        data_format: ``"channels_last"``, ``"channels_first"``, or None for the `image_data_format`
            of Keras' config file.
        dilation_rate: a positive integer.
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
        - ``"channels_last"``: `(batch, length, channels)`
        - ``"channels_first"``: `(batch, channels, length)`

        of a floating dtype, which is cast to the layer's compute dtype.

    Output shape:
        - ``"channels_last"``: `(batch, new_length, channels * depth_multiplier)`
        - ``"channels_first"``: `(batch, channels * depth_multiplier, new_length)`

    Raises:
        ValueError: an argument is out of range, the input's shape does not fit the layer, or the
            output would be empty.
        TypeError: a size is no integer, or the input is not of a floating dtype.

    Example:
        >>> import numpy as np
        >>> x = np.random.rand(2, 10, 4).astype("float32")
        >>> y = DepthwiseConv1D(3, padding="causal", dilation_rate=2, depth_multiplier=2)(x)
        >>> tuple(y.shape)
        (2, 10, 8)
    """

    _rank = 1
    _stock = keras.layers.DepthwiseConv1D

    def __init__(
        self,
        kernel_size: int | tuple[int],
        strides: int | tuple[int] = 1,
        padding: Any = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: int | tuple[int] = 1,
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
