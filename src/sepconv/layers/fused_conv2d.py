"""A convolution block of an inference network as one Keras layer."""

from __future__ import annotations

from typing import Any

import keras

from sepconv.arguments import positive_sizes
from sepconv.engines import adapter
from sepconv.engines.front import fuse
from sepconv.fused import BLOCK_ACTIVATIONS, Operands, block_spec, check_block
from sepconv.geometry import conv_spec
from sepconv.layers.activations import kernel_activation
from sepconv.layers.devices import supports_jit
from sepconv.layers.exporting import NotExported
from sepconv.layers.selecting import ordinary_kernel
from sepconv.layers.weights import weight_value

__all__ = ["FusedConv2D"]


def _activation(value: Any) -> Any:
    """One of Keras' activations, None for the one that does nothing."""
    activation = keras.activations.get(value)
    return None if activation is keras.activations.linear else activation


@keras.saving.register_keras_serializable(package="sepconv")
class FusedConv2D(NotExported, keras.layers.Layer):
    """Depthwise, 1x1 or ordinary convolution, or the first two, with all that stands around them.

    It computes ``activation(pointwise(depthwise_activation(depthwise(x) + depthwise_bias)) + bias +
    residual)``, or with one convolution alone ``activation(convolution(x) + bias + residual)``, in
    one pass over memory. `sepconv.optimize` makes networks of it. It can be
    trained, at the speed of the layers that it stands for.

    Args:
        filters: the number of output channels of the convolution that mixes channels; None for
            none.
        kernel_size: (height, width) of the first convolution's kernel, or one integer; None for a
            1x1 convolution alone.
        strides: a positive integer, or two, of the first convolution.
        padding: ``"valid"``, ``"same"`` or ``((top, bottom), (left, right))``, around the inputs of
            the first convolution.
        dilation_rate: a positive integer, or two.
        depth_multiplier: the number of depthwise outputs of every input channel; None for an
            ordinary convolution, whose kernel of `kernel_size` mixes channels.
        data_format: ``"channels_last"``, ``"channels_first"``, or None for the `image_data_format`
            of Keras' config file.
        depthwise_use_bias: whether a bias is added after the depthwise convolution; only where a
            1x1 convolution follows.
        depthwise_activation: of the depthwise convolution's outputs where a 1x1 convolution
            follows: None, ``"relu"``, ``"relu6"``, ``"hard_silu"`` or ``"silu"``.
        use_bias: whether a bias is added last.
        activation: applied last; any of Keras' activations.
        depthwise_initializer: initializer of the depthwise kernel.
        pointwise_initializer: initializer of the kernel that mixes channels.
        **kwargs: `name`, `trainable`, `dtype` and what else `keras.layers.Layer` takes.

    Call arguments:
        inputs: `(batch, height, width, channels)`, or with the channels second.
        residual: None, or a tensor of the output's shape that is added before the activation;
            only where a convolution mixes channels.

    Output shape:
        `(batch, new_height, new_width, filters)`, or with the channels second.

    Raises:
        ValueError: an argument is out of range, or shapes do not fit.
        TypeError: a size is no integer.

    Example:
        >>> import numpy as np
        >>> x = np.random.rand(1, 8, 8, 4).astype("float32")
        >>> layer = FusedConv2D(4, 3, padding="same", depthwise_activation="relu6")
        >>> tuple(layer(x, x).shape)
        (1, 8, 8, 4)

    Source: Sandler et al., MobileNetV2, 2018, https://arxiv.org/abs/1801.04381
    """

    _instead = "Export the model that sepconv.optimize was given, which has Keras' own layers"

    def __init__(
        self,
        filters: int | None = None,
        kernel_size: int | tuple[int, int] | None = None,
        strides: int | tuple[int, int] = (1, 1),
        padding: Any = "valid",
        dilation_rate: int | tuple[int, int] = (1, 1),
        depth_multiplier: int | None = 1,
        data_format: str | None = None,
        depthwise_use_bias: bool = False,
        depthwise_activation: Any = None,
        use_bias: bool = True,
        activation: Any = None,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.depthwise_initializer = keras.initializers.get(depthwise_initializer)
        self.pointwise_initializer = keras.initializers.get(pointwise_initializer)
        if filters is None and kernel_size is None:
            raise ValueError("At least one of filters and kernel_size must be given.")
        self.filters = None if filters is None else positive_sizes("filters", filters, 1)[0]
        self.kernel_size = None
        if kernel_size is not None:
            self.kernel_size = positive_sizes("kernel_size", kernel_size, 2)
        self.depth_multiplier = None
        if depth_multiplier is not None:
            (self.depth_multiplier,) = positive_sizes("depth_multiplier", depth_multiplier, 1)
        elif filters is None or kernel_size is None:
            raise ValueError(
                "depth_multiplier=None is for an ordinary convolution, which has filters and a "
                f"kernel_size. Received: filters={filters}, kernel_size={kernel_size}"
            )
        self.data_format = keras.config.image_data_format() if data_format is None else data_format
        spec = conv_spec(strides, padding, dilation_rate, self.data_format)
        self.strides = spec.stride_h, spec.stride_w
        self.dilation_rate = spec.dilation_h, spec.dilation_w
        self.padding: Any = "same" if spec.same else "valid"
        if any(spec[5:9]):
            self.padding = (spec.pad_top, spec.pad_bottom), (spec.pad_left, spec.pad_right)
        self.depthwise_activation = _activation(depthwise_activation)
        self.depthwise_use_bias = bool(depthwise_use_bias)
        between = kernel_activation(self.depthwise_activation, BLOCK_ACTIVATIONS)
        if self.depthwise_activation is not None and between is None:
            raise ValueError(
                "depthwise_activation must be None, 'relu', 'relu6', 'hard_silu' or 'silu'. "
                f"Received: depthwise_activation={depthwise_activation!r}"
            )
        separable = filters is not None and self._depthwise_size is not None
        if (between or depthwise_use_bias) and not separable:
            raise ValueError(
                "depthwise_use_bias and depthwise_activation are for a depthwise convolution that "
                f"a 1x1 convolution follows. Received: filters={filters}, "
                f"kernel_size={kernel_size}, depth_multiplier={depth_multiplier}"
            )
        self.use_bias = bool(use_bias)
        self.activation = _activation(activation)
        fused = kernel_activation(self.activation, BLOCK_ACTIVATIONS)
        self._activation_after = None if fused else self.activation
        # `block_spec` only tests which operands are None.
        weights = Operands(None, self._depthwise_size, pointwise_kernel=self.filters)
        ordinary = depth_multiplier is None and self.kernel_size != (1, 1)
        self._block, self._steps = block_spec(weights, spec, between, fused, ordinary=ordinary)
        self._spec = spec
        adapter(keras.backend.backend())  # raises here where the engine is not installed
        self.depthwise_kernel = self.pointwise_kernel = self.depthwise_bias = self.bias = None
        self.input_spec = keras.InputSpec(ndim=4)
        self.supports_jit = supports_jit()

    @property
    def _depthwise_size(self) -> Any:
        """The height and width of the depthwise kernel; None where there is none."""
        return None if self.depth_multiplier is None else self.kernel_size

    def _kernel_shapes(self, channels: int) -> tuple[Any, Any]:
        """Those of the depthwise kernel and of the one that mixes channels, None for none."""
        depthwise, size = None, self.kernel_size or (1, 1)
        if self.depth_multiplier is not None and self.kernel_size is not None:
            depthwise = (*size, channels, self.depth_multiplier)
            channels, size = channels * self.depth_multiplier, (1, 1)
        return depthwise, None if self.filters is None else (*size, channels, self.filters)

    def _channels(self, inputs_shape: Any) -> int:
        """The number of channels of inputs, which must be known."""
        if len(inputs_shape) != 4:
            raise ValueError(
                f"The inputs of {self.name!r} must have 4 axes. "
                f"Received: inputs_shape={tuple(inputs_shape)}"
            )
        channels = inputs_shape[self._spec.channel_axis]
        if channels is None:
            raise ValueError(
                f"The number of channels of the inputs of {self.name!r} must be known, since its "
                f"kernels have that size. Received: inputs_shape={tuple(inputs_shape)} with "
                f"data_format={self.data_format!r}"
            )
        return channels

    def build(self, inputs_shape: Any, residual_shape: Any = None) -> None:
        """Makes the weights."""
        channels = self._channels(inputs_shape)
        self.input_spec = keras.InputSpec(ndim=4, axes={self._spec.channel_axis: channels})
        self._add_weights(channels)

    def _add_weights(self, channels: int) -> None:
        depthwise, pointwise = self._kernel_shapes(channels)
        if depthwise is not None:
            self.depthwise_kernel = self.add_weight(
                name="depthwise_kernel", shape=depthwise, initializer=self.depthwise_initializer
            )
            channels = depthwise[2] * depthwise[3]
            if self.depthwise_use_bias:
                self.depthwise_bias = self.add_weight(
                    name="depthwise_bias", shape=(channels,), initializer="zeros"
                )
        if pointwise is not None:
            self.pointwise_kernel = self.add_weight(
                name="pointwise_kernel", shape=pointwise, initializer=self.pointwise_initializer
            )
            channels = pointwise[3]
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(channels,), initializer="zeros")

    def load_own_variables(self, store: Any) -> None:
        """Loads the weights; see `sepconv.layers.selecting` for those of older files."""
        weights = [store[key] for key in map(str, range(len(store.keys())))]
        kernel = ordinary_kernel(weights, self)
        if kernel is not None:
            if self.depth_multiplier is not None:
                self._become_ordinary(kernel.shape[2])
            store = {str(i): array for i, array in enumerate([kernel, *weights[2:]])}
        super().load_own_variables(store)

    def _become_ordinary(self, channels: int) -> None:
        """Has new weights in the place of those of a separable convolution."""
        for weight in self.weights:
            self._untrack_variable(weight)
        self._tracker.unlock()
        self.depthwise_kernel = self.depth_multiplier = None
        self._add_weights(channels)
        self._tracker.lock()

    def call(self, inputs: Any, residual: Any = None) -> Any:
        """See the class."""
        tensor = self._tensor
        operands = Operands(
            inputs,
            tensor(self.depthwise_kernel),
            tensor(self.depthwise_bias),
            tensor(self.pointwise_kernel),
            tensor(self.bias),
            residual,
        )
        outputs = fuse(adapter(keras.backend.backend()), operands, self._block, self._steps)
        return outputs if self._activation_after is None else self._activation_after(outputs)

    def _tensor(self, weight: Any) -> Any:
        return None if weight is None else weight_value(weight, self.compute_dtype)

    def compute_output_shape(self, inputs_shape: Any, residual_shape: Any = None) -> Any:
        """The output's shape, None for sizes that are not known."""
        channels = self._channels(inputs_shape)
        depthwise, pointwise = self._kernel_shapes(channels)
        shapes = Operands(
            inputs_shape, depthwise, pointwise_kernel=pointwise, residual=residual_shape
        )
        return check_block(shapes, self._spec)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        serialize = keras.activations.serialize
        config = {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "dilation_rate": self.dilation_rate,
            "depth_multiplier": self.depth_multiplier,
            "data_format": self.data_format,
            "depthwise_use_bias": self.depthwise_use_bias,
            "depthwise_activation": self.depthwise_activation,
            "use_bias": self.use_bias,
            "activation": self.activation,
        }
        for name in ("depthwise_activation", "activation"):
            if config[name] is not None:
                config[name] = serialize(config[name])
        for name in ("depthwise_initializer", "pointwise_initializer"):
            config[name] = keras.initializers.serialize(getattr(self, name))
        return {**super().get_config(), **config}
