"""Mixins for the layers: a Keras layer whose computation, shapes and files are replaced.

A layer derives from one of these mixins and from Keras' class of the same name. Weights,
initializers, regularizers, constraints, dtype policies and the config are Keras'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import keras
from keras import ops

from sepconv.arguments import integers, positive_sizes
from sepconv.engines import adapter
from sepconv.engines.front import convolve_1d, convolve_2d, spec_builder
from sepconv.geometry import (
    ConvSpec,
    conv_spec,
    conv_spec_1d,
    output_shape,
)
from sepconv.layers.activations import kernel_activation
from sepconv.layers.devices import supports_jit
from sepconv.layers.exporting import NotExported
from sepconv.layers.weights import weight_value

__all__ = ["DepthwiseMixin", "ReplacementMixin", "SeparableMixin"]

#: Keys that Keras 2 wrote into these layers' configs because they were subclasses of `Conv`. They
#: had no effect, so they can be left out.
_KERAS_2_KEYS = ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint")


class ReplacementMixin(NotExported):
    """Lets a layer take the place of a layer of Keras' own class, and the other way round.

    In a layer's bases, it comes before Keras' class.

    Class attributes of a layer:
        _stock: Keras' class.
    """

    _stock: ClassVar[type[keras.layers.Layer]]

    def _attach(self) -> None:
        """Sets the attributes that our layers have and Keras' do not."""
        self.supports_jit = supports_jit()

    def _detach(self) -> None:
        """Undoes `_attach`."""
        self.supports_jit = True

    @classmethod
    def become(cls, layer: keras.layers.Layer) -> None:
        """Turns a layer of Keras' class into one of ours, in place.

        Its weights stay, and so do references to it.
        """
        layer.__class__ = cls
        layer._attach()

    def become_stock(self) -> None:
        """Turns this layer into one of Keras' own class, in place."""
        self._detach()
        self.__class__ = self._stock

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> keras.layers.Layer:
        """A layer from its config."""
        # A registered class takes precedence over `custom_objects`, so `stock_objects()` can have
        # its effect only here.
        if keras.saving.get_registered_object(cls.__name__) is cls._stock:
            return cls._stock.from_config(config)
        return super().from_config(config)


class _ConvolutionMixin(ReplacementMixin):
    """The code that depthwise and separable layers share.

    Class attributes of a layer:
        _rank: the number of spatial axes.
    """

    _rank: ClassVar[int]

    def __init__(
        self,
        *,
        kernel_size: Any,
        strides: Any,
        padding: Any,
        dilation_rate: Any,
        depth_multiplier: Any,
        **arguments: Any,
    ) -> None:
        rank = self._rank
        # Keras checks sizes first, with its own messages, as its own layer would. Before that,
        # values that Keras would not take as sizes, such as NumPy's integers, are converted.
        sizes = {
            name: value if type(value) is int else integers(name, value, rank)
            for name, value in (
                ("kernel_size", kernel_size),
                ("strides", strides),
                ("dilation_rate", dilation_rate),
            )
        }
        # Keras before 3.14 refuses strides together with dilation, which are computed here.
        known = {**sizes, "dilation_rate": 1} if _strided_and_dilated(sizes) else sizes
        super().__init__(
            **known,
            # Keras' constructor knows two paddings only; its use of them is replaced below.
            padding="valid",
            depth_multiplier=_number("depth_multiplier", depth_multiplier),
            **arguments,
        )
        for name, value in sizes.items():
            checked = positive_sizes(name, value, rank)
            if name == "dilation_rate":
                self.dilation_rate = checked
        positive_sizes("depth_multiplier", self.depth_multiplier, 1)
        spec = _spec(self.kernel_size, self.strides, padding, self.dilation_rate, "channels_last")
        self.padding: Any
        if isinstance(padding, str):
            self.padding = padding.lower()
        elif rank == 2:
            self.padding = ((spec.pad_top, spec.pad_bottom), (spec.pad_left, spec.pad_right))
        else:
            self.padding = (spec.pad_left, spec.pad_right)
        self.input_spec = keras.InputSpec(ndim=rank + 2)
        self._attach()

    def _attach(self) -> None:
        super()._attach()
        adapter(keras.backend.backend())  # raises here where the engine is not installed

    def _spec(self, build: Callable[..., ConvSpec] = conv_spec) -> ConvSpec:
        """The spec, made of the attributes each time, since these may be set after the layer."""
        arguments = self.strides, self.padding, self.dilation_rate, self.data_format
        return _spec(self.kernel_size, *arguments, build)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        axis = 1 if self.data_format == "channels_first" else -1
        channels = input_shape[axis]
        if channels is None:
            raise ValueError(
                f"The number of channels of the inputs of {self.name!r} must be known, since its "
                f"kernels have that size. Received: input_shape={input_shape} with "
                f"data_format={self.data_format!r}"
            )
        super().build(input_shape)
        self.input_spec = keras.InputSpec(ndim=self._rank + 2, axes={axis: channels})

    def call(self, inputs: Any) -> Any:
        inputs = ops.convert_to_tensor(inputs)
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        self._check_dtype(dtype)
        if dtype != self.compute_dtype:
            inputs = ops.cast(inputs, self.compute_dtype)
        tensors = [weight_value(t, self.compute_dtype) for t in self._kernels()]
        bias = weight_value(self.bias, self.compute_dtype) if self.use_bias else None
        kernel, pointwise = tensors if len(tensors) == 2 else (*tensors, None)
        fused = kernel_activation(self.activation)
        engine = adapter(keras.backend.backend())
        convolve = convolve_1d if self._rank == 1 else convolve_2d
        outputs = convolve(
            engine,
            inputs,
            kernel,
            pointwise,
            bias,
            self._spec(spec_builder(engine)),
            fused,
        )
        if self.activation is None or fused is not None:
            return outputs
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        rank, first = self._rank, self.data_format == "channels_first"
        if len(input_shape) != rank + 2:
            raise ValueError(
                f"The inputs of {self.name!r} must have {rank + 2} axes. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        batch, *rest = input_shape
        channels = rest.pop(0 if first else -1)
        if self.padding == "valid" and channels is not None:
            # Where the output would be empty, Keras says so in its own words.
            super().compute_output_shape(tuple(input_shape))
        ones = (1,) * (2 - rank)
        image = (batch, channels, *ones, *rest) if first else (batch, *ones, *rest, channels)
        kernel_shape = (*ones, *self.kernel_size, channels, self.depth_multiplier)
        shape = list(output_shape(self._spec(), image, (kernel_shape, self._pointwise_shape())))
        if rank == 1:
            del shape[2 if first else 1]
        return tuple(shape)

    def compute_output_spec(self, inputs: Any) -> Any:
        self._check_dtype(inputs.dtype)
        return super().compute_output_spec(inputs)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> keras.layers.Layer:
        return super().from_config({k: v for k, v in config.items() if k not in _KERAS_2_KEYS})

    def _check_dtype(self, dtype: Any) -> None:
        name = keras.backend.standardize_dtype(dtype)
        if not keras.backend.is_float_dtype(name):
            raise TypeError(
                f"The inputs of {self.name!r} must be of a floating dtype. Received: "
                f"inputs.dtype={name}; convert them, as with keras.ops.cast(inputs, 'float32')."
            )

    def _kernels(self) -> tuple[Any, ...]:
        """The depthwise kernel, followed by the pointwise kernel where there is one."""
        raise NotImplementedError

    def _pointwise_shape(self) -> tuple[int | None, ...] | None:
        """The shape of the pointwise kernel, or None for a layer without one."""
        return None


class DepthwiseMixin(_ConvolutionMixin):
    """Computes one of Keras' depthwise convolutions by sepconv."""

    def _kernels(self) -> tuple[Any, ...]:
        return (self.kernel,)


class SeparableMixin(_ConvolutionMixin):
    """Computes one of Keras' separable convolutions by sepconv."""

    def __init__(self, *, filters: Any, **arguments: Any) -> None:
        super().__init__(filters=_number("filters", filters), **arguments)
        positive_sizes("filters", self.filters, 1)

    def _kernels(self) -> tuple[Any, ...]:
        return self.depthwise_kernel, self.pointwise_kernel

    def _pointwise_shape(self) -> tuple[int | None, ...] | None:
        return 1, 1, None, self.filters


def _strided_and_dilated(sizes: dict[str, Any]) -> bool:
    def above_1(value: Any) -> bool:
        return any(v > 1 for v in (value if isinstance(value, tuple) else (value,)))

    return above_1(sizes["strides"]) and above_1(sizes["dilation_rate"])


def _number(name: str, value: Any) -> int:
    """`value` as an integer of any size; it may be the only element of a sequence."""
    numbers = integers(name, value, 1)
    return numbers[0] if len(numbers) == 1 else positive_sizes(name, value, 1)[0]  # which raises


def _spec(
    kernel_size: tuple[int, ...],
    strides: Any,
    padding: Any,
    dilation_rate: Any,
    data_format: str,
    build: Callable[..., ConvSpec] = conv_spec,
) -> ConvSpec:
    if len(kernel_size) == 2:
        return build(strides, padding, dilation_rate, data_format)
    return conv_spec_1d(kernel_size[0], strides, padding, dilation_rate, data_format, build)
