"""Keras' Conv2D, computed by sepconv where it is a depthwise or a 1x1 convolution."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from sepconv.engines import adapter
from sepconv.engines.front import spec_builder
from sepconv.layers.base import ReplacementMixin
from sepconv.layers.empty import is_empty, lend_an_image
from sepconv.layers.ordinary import convolve, layer_refusal, refusal

__all__ = ["Conv2D"]


@keras.saving.register_keras_serializable(package="sepconv")
class Conv2D(ReplacementMixin, keras.layers.Conv2D):
    """Two-dimensional convolution, by sepconv's kernels where it is a depthwise or a 1x1 one.

    Everything but the computation is as in `keras.layers.Conv2D`: arguments, weights and their
    names, config and files. Sepconv computes it

    - with as many `groups` as the input has channels, on every engine;
    - on an input of one channel with at most 16 filters (PyTorch: 8), such as EEGNet's first layer;
    - with a 1x1 kernel without groups, at least 8 channels and 8 filters, on JAX and, in
      ``"channels_last"``, on PyTorch: what MobileNet mostly consists of.

    In bfloat16 and float16, as with the policy ``"mixed_bfloat16"``, sums are float32's, rounded
    once.

    Keras computes every other convolution, and the bias and activation after any of them. One
    result differs: for a batch without images, TensorFlow's own is wrong and this one is right.

    Args:
        filters: the number of output channels.
        kernel_size: (height, width) of the kernel, or one integer for both.
        strides: a positive integer, or two: (height, width).
        padding: ``"valid"`` (none) or ``"same"`` (an output of ``ceil(size / stride)``).
        data_format: ``"channels_last"``, ``"channels_first"``, or None for the `image_data_format`
            of Keras' config file.
        dilation_rate: a positive integer, or two; not together with strides.
        groups: the number of groups of channels and filters; a filter sees the channels of its
            group.
        activation: applied last; None for none.
        use_bias: whether a bias is added.
        kernel_initializer: initializer of the kernel.
        bias_initializer: initializer of the bias.
        kernel_regularizer: regularizer of the kernel, or None.
        bias_regularizer: regularizer of the bias, or None.
        activity_regularizer: regularizer of the output, or None.
        kernel_constraint: constraint on the kernel, or None.
        bias_constraint: constraint on the bias, or None.
        **kwargs: `name`, `trainable`, `dtype` and what else `keras.layers.Layer` takes.

    Input shape:
        - ``"channels_last"``: `(batch, height, width, channels)`
        - ``"channels_first"``: `(batch, channels, height, width)`

    Output shape:
        - ``"channels_last"``: `(batch, new_height, new_width, filters)`
        - ``"channels_first"``: `(batch, filters, new_height, new_width)`

    Raises:
        ValueError: an argument is out of range, or the input's shape does not fit the layer.

    Example:
        >>> import numpy as np
        >>> x = np.random.rand(2, 10, 10, 4).astype("float32")
        >>> y = Conv2D(8, 3, groups=4, activation="relu")(x)
        >>> tuple(y.shape)
        (2, 8, 8, 8)
    """

    _stock = keras.layers.Conv2D

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, int] = (1, 1),
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
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
            groups=groups,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            **kwargs,
        )
        self._attach()

    def call(self, inputs: Any) -> Any:
        """The convolution with its bias and activation."""
        empty = is_empty(inputs)
        if empty is False or (self._channels(inputs) is not None and not layer_refusal(self)):
            return super().call(inputs)  # our kernels take any number of images
        return lend_an_image(super().call, inputs)

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """The convolution without bias and activation, which Keras' `call` adds."""
        inputs, kernel = ops.convert_to_tensor(inputs), ops.convert_to_tensor(kernel)
        dtype = keras.backend.standardize_dtype(kernel.dtype)
        floating = keras.backend.is_float_dtype(keras.backend.standardize_dtype(inputs.dtype))
        kernel_shape, channels = tuple(kernel.shape), self._channels(inputs)
        if not floating or refusal(channels, kernel_shape, dtype, self.data_format):
            return super().convolution_op(inputs, kernel)
        build = spec_builder(adapter(keras.backend.backend()))
        spec = build(self.strides, self.padding, self.dilation_rate, self.data_format)
        return convolve(ops.cast(inputs, dtype), kernel, spec)

    def _channels(self, inputs: Any) -> int | None:
        """The channels of inputs with four axes; None for other inputs, which Keras takes too."""
        if len(inputs.shape) != 4:
            return None
        return inputs.shape[1 if self.data_format == "channels_first" else 3]
