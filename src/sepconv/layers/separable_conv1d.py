"""Keras' SeparableConv1D, computed by sepconv."""

from __future__ import annotations

from typing import Any

import keras

from sepconv.layers.base import SeparableMixin

__all__ = ["SeparableConv1D"]


@keras.saving.register_keras_serializable(package="sepconv")
class SeparableConv1D(SeparableMixin, keras.layers.SeparableConv1D):
    """One-dimensional depthwise convolution, then a convolution of size 1 that mixes channels.

    Everything but the computation is as in `keras.layers.SeparableConv1D`: arguments, weights and
    their names, config and files. Beyond Keras' own, on every engine:

    - `strides` may be combined with a `dilation_rate`;
    - `padding` may be ``"causal"`` or ``(left, right)``;
    - an input that the kernel does not fit into raises a ValueError, also once the layer is built.

    Args:
        filters: the number of output channels of the pointwise convolution.
        kernel_size: the length of the depthwise kernel.
        strides: a positive integer.
        padding: ``"valid"`` (none), ``"same"`` (an output of ``ceil(size / stride)``), ``"causal"``
            (no output sees a later input) or ``(left, right)``.
        data_format: ``"channels_last"``, ``"channels_first"``, or None for the `image_data_format`
            of Keras' config file.
        dilation_rate: a positive integer.
        depth_multiplier: the number of depthwise outputs of every input channel.
        activation: applied last; None for none. ``"relu"`` and ``"relu6"`` are applied to sums in
            registers, without a pass over memory.
        use_bias: whether a bias is added.
        depthwise_initializer: initializer of the depthwise kernel.
        pointwise_initializer: initializer of the pointwise kernel.
        bias_initializer: initializer of the bias.
        depthwise_regularizer: regularizer of the depthwise kernel, or None.
        pointwise_regularizer: regularizer of the pointwise kernel, or None.
        bias_regularizer: regularizer of the bias, or None.
        activity_regularizer: regularizer of the output, or None.
        depthwise_constraint: constraint on the depthwise kernel, or None.
        pointwise_constraint: constraint on the pointwise kernel, or None.
        bias_constraint: constraint on the bias, or None.
        **kwargs: `name`, `trainable`, `dtype` and what else `keras.layers.Layer` takes.

    Input shape:
        - ``"channels_last"``: `(batch, length, channels)`
        - ``"channels_first"``: `(batch, channels, length)`

        of a floating dtype, which is cast to the layer's compute dtype.

    Output shape:
        - ``"channels_last"``: `(batch, new_length, filters)`
        - ``"channels_first"``: `(batch, filters, new_length)`

    Raises:
        ValueError: an argument is out of range, the input's shape does not fit the layer, or the
            output would be empty.
        TypeError: a size is no integer, or the input is not of a floating dtype.

    Example:
        >>> import numpy as np
        >>> x = np.random.rand(2, 10, 4).astype("float32")
        >>> y = SeparableConv1D(8, 3, padding="causal", dilation_rate=2)(x)
        >>> tuple(y.shape)
        (2, 10, 8)
    """

    _rank = 1
    _stock = keras.layers.SeparableConv1D

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int],
        strides: int | tuple[int] = 1,
        padding: Any = "valid",
        data_format: str | None = None,
        dilation_rate: int | tuple[int] = 1,
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            filters=filters,
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            depth_multiplier=depth_multiplier,
            activation=activation,
            use_bias=use_bias,
            depthwise_initializer=depthwise_initializer,
            pointwise_initializer=pointwise_initializer,
            bias_initializer=bias_initializer,
            depthwise_regularizer=depthwise_regularizer,
            pointwise_regularizer=pointwise_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            depthwise_constraint=depthwise_constraint,
            pointwise_constraint=pointwise_constraint,
            bias_constraint=bias_constraint,
            **kwargs,
        )
