"""A `Conv2D` layer that may become separable: whether it can, and the new layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from sepconv.geometry import conv_spec
from sepconv.layers import Conv2D, SeparableConv2D
from sepconv.models.duplicate import Copier
from sepconv.models.factorizable import Factorizable
from sepconv.models.folding import obstacle
from sepconv.models.lowrank import Factors

__all__ = ["Candidate", "refusal"]


def refusal(layer: Any) -> str | None:
    """Why a convolution cannot be factorized; None where it can."""
    if layer.groups != 1:
        return (
            f"it is grouped (groups={layer.groups}): its filters see part of the channels, which "
            "a separable convolution cannot express"
        )
    if type(layer) not in (keras.layers.Conv2D, Conv2D):
        return f"{type(layer).__name__} is a subclass of Conv2D and may compute something else"
    if layer.kernel_constraint is not None:
        return "its kernel_constraint would not hold for a product of two kernels"
    if getattr(layer, "lora_enabled", False):
        return "it has LoRA factors, which are trained in place of its kernel"
    why = obstacle(layer)
    if why is not None and not isinstance(layer.activation, keras.layers.Layer):
        return why
    if not layer.built:
        return "it is not built yet: call it, or its build(input_shape), first"
    return None


@dataclass
class Candidate(Factorizable):
    """An ordinary convolution of Keras', and what is known of it."""

    layer: Any = None

    @classmethod
    def of(cls, layer: Any, path: str) -> Candidate:
        """The candidate of a built layer. `path` is the layer's name in reports."""
        kernel = layer.kernel
        if keras.backend.standardize_dtype(kernel.dtype) == "bfloat16":  # unknown to NumPy
            kernel = ops.cast(kernel, "float32")
        kernel = np.asarray(ops.convert_to_numpy(kernel), np.float64)
        arguments = layer.strides, layer.padding, layer.dilation_rate, layer.data_format
        free = layer.use_bias and layer.bias_constraint is None
        return cls(path, kernel, conv_spec(*arguments), layer.use_bias, free, layer=layer)

    def approximated(self, factors: Factors) -> list[tuple[Any, np.ndarray]]:
        """The layer's variables, with the values that correspond to the factors."""
        values = [(self.layer.kernel, factors.kernel())]
        if self.layer.use_bias:
            bias = np.asarray(ops.convert_to_numpy(ops.cast(self.layer.bias, "float32")))
            values.append((self.layer.bias, bias + factors.bias))
        return values

    def separable(self, factors: Factors) -> Any:
        """The separable layer with the factors as its weights."""
        layer, copier = self.layer, Copier()
        new = SeparableConv2D(
            layer.filters,
            layer.kernel_size,
            strides=layer.strides,
            padding=layer.padding,
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate,
            depth_multiplier=factors.rank,
            activation=copier.copy(layer.activation),
            use_bias=layer.use_bias,
            bias_initializer=copier.copy(layer.bias_initializer),
            depthwise_regularizer=copier.copy(layer.kernel_regularizer),
            pointwise_regularizer=copier.copy(layer.kernel_regularizer),
            bias_regularizer=copier.copy(layer.bias_regularizer),
            activity_regularizer=copier.copy(layer.activity_regularizer),
            bias_constraint=copier.copy(layer.bias_constraint),
            name=layer.name,
            trainable=layer.trainable,
            dtype=layer.dtype_policy,
        )
        channels = self.kernel.shape[2]
        first = layer.data_format == "channels_first"
        new.build((None, channels, None, None) if first else (None, None, None, channels))
        new.depthwise_kernel.assign(factors.depthwise_kernel)
        new.pointwise_kernel.assign(factors.pointwise_kernel)
        if layer.use_bias:
            new.bias.assign(ops.convert_to_numpy(layer.bias) + factors.bias)
            new.bias.trainable = layer.bias.trainable
        for kernel in (new.depthwise_kernel, new.pointwise_kernel):
            kernel.trainable = layer.kernel.trainable
        return new
