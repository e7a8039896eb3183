"""Convolutions as float64 arrays, and the arithmetic that folds batch normalization into them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np

from sepconv import layers
from sepconv.models.graph import OTHERWISE, computes_otherwise

__all__ = ["Affine", "Convolution", "FusedConvolution", "Stock", "affine_of", "lower", "obstacle"]

#: The most values in a patch of an ordinary convolution that becomes a block: tiles of larger
#: patches do not fit into the second cache.
_MOST_PATCHES = 1024


class Affine(NamedTuple):
    """``scale * x + shift``, with one value of each per channel."""

    scale: np.ndarray
    shift: np.ndarray


@dataclass
class Convolution:
    """The base of `FusedConvolution` and `Stock`.

    Attributes:
        layer: the layer that it was made of.
        data_format: ``"channels_last"`` or ``"channels_first"``.
        bias: of the last convolution, or None.
        activation: one of Keras', or None.
        parts: the labels of the steps that are merged into it, in order.
    """

    layer: Any
    data_format: str
    bias: np.ndarray | None
    activation: Any
    parts: list[str] = field(default_factory=list, kw_only=True)

    def add_to_bias(self, shift: Any) -> None:
        """Adds one value for each output channel, or one for all."""
        bias = np.zeros(self.outputs) if self.bias is None else self.bias
        self.bias = bias + shift

    @property
    def outputs(self) -> int:
        """The number of output channels."""
        raise NotImplementedError

    @property
    def open(self) -> bool:
        """Whether the next step may be merged into it."""
        return self.activation is None


@dataclass
class FusedConvolution(Convolution):
    """A convolution that a `FusedConv2D` computes: depthwise, ordinary or separable.

    Attributes:
        depthwise: [kh, kw, C, M], or None.
        pointwise: [1, 1, C * M, F], or None; without `depthwise` [kh, kw, C, F].
        strides: of the first of the two.
        padding: ``"valid"``, ``"same"`` or explicit, see there.
        dilation_rate: see there.
        depthwise_bias: between the two, or None.
        depthwise_activation: between the two, one of Keras', or None.
        residual: whether something is added before the activation.
    """

    depthwise: np.ndarray | None
    pointwise: np.ndarray | None
    strides: tuple[int, int]
    padding: Any
    dilation_rate: tuple[int, int]
    depthwise_bias: np.ndarray | None = None
    depthwise_activation: Any = None
    residual: bool = False

    @property
    def outputs(self) -> int:
        """The number of output channels."""
        if self.pointwise is not None:
            return self.pointwise.shape[3]
        assert self.depthwise is not None
        return self.depthwise.shape[2] * self.depthwise.shape[3]

    @property
    def kernel_size(self) -> tuple[int, int]:
        """That of the first of the two."""
        kernel = self.pointwise if self.depthwise is None else self.depthwise
        assert kernel is not None
        return kernel.shape[0], kernel.shape[1]

    @property
    def is_pointwise(self) -> bool:
        """Whether it is a 1x1 convolution alone."""
        return self.depthwise is None and self.kernel_size == (1, 1)

    @property
    def open(self) -> bool:
        """Whether the next step may be merged into it."""
        return self.activation is None and not self.residual

    @property
    def unpadded(self) -> bool:
        """Whether it needs no padding with zeros."""
        if self.kernel_size == (1, 1):
            return isinstance(self.padding, str)
        return self.padding == "valid"

    def fold_after(self, affine: Affine) -> None:
        """Applies ``scale * y + shift`` to its result y."""
        if self.pointwise is not None:
            self.pointwise = self.pointwise * affine.scale
        else:
            assert self.depthwise is not None
            self.depthwise = self.depthwise * affine.scale.reshape(self.depthwise.shape[2:])
        if self.bias is not None:
            self.bias = self.bias * affine.scale
        self.add_to_bias(affine.shift)

    def fold_before(self, affine: Affine) -> None:
        """Applies ``scale * x + shift`` to its input x."""
        if self.depthwise is None:
            assert self.pointwise is not None
            self.add_to_bias(affine.shift @ self.pointwise.sum((0, 1)))
            self.pointwise = self.pointwise * affine.scale[:, None]
            return
        shift = (self.depthwise.sum((0, 1)) * affine.shift[:, None]).reshape(-1)
        plain = self.depthwise_activation is None and self.depthwise_bias is None
        if self.pointwise is not None and plain:
            self.add_to_bias(shift @ self.pointwise[0, 0])
            scale = np.repeat(affine.scale, self.depthwise.shape[3])
            self.pointwise = self.pointwise * scale[:, None]
            return
        self.depthwise = self.depthwise * affine.scale[:, None]
        if self.pointwise is None:
            self.add_to_bias(shift)
        else:
            self.depthwise_bias = shift + (
                0 if self.depthwise_bias is None else self.depthwise_bias
            )

    def append(self, pointwise: FusedConvolution) -> None:
        """Appends a 1x1 convolution to this depthwise one."""
        self.depthwise_bias, self.depthwise_activation = self.bias, self.activation
        self.pointwise, self.bias = pointwise.pointwise, pointwise.bias
        self.activation, self.residual = pointwise.activation, pointwise.residual
        self.parts += pointwise.parts


@dataclass
class Stock(Convolution):
    """A layer of Keras' own that stays one, with other weights.

    Attributes:
        kernels: its kernels; the last has the output channels on its last axes.
        config: the arguments that change.
    """

    kernels: list[np.ndarray]
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """The number of output channels."""
        kernel = self.kernels[-1]
        depthwise = isinstance(self.layer, keras.layers.DepthwiseConv1D)
        return kernel.shape[-1] * (kernel.shape[-2] if depthwise else 1)

    @property
    def unpadded(self) -> bool:
        """Whether all inputs that it sees are the tensor's, in one kernel of all channels."""
        if isinstance(self.layer, keras.layers.Dense):
            return True
        dense = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
        return (
            isinstance(self.layer, dense)
            and self.layer.groups == 1
            and self.config.get("padding", self.layer.padding) == "valid"
        )

    def fold_after(self, affine: Affine) -> None:
        """Applies ``scale * y + shift`` to its result y."""
        kernel = self.kernels[-1]
        scale = affine.scale
        if isinstance(self.layer, keras.layers.DepthwiseConv1D):
            scale = scale.reshape(kernel.shape[-2:])
        self.kernels[-1] = kernel * scale
        if self.bias is not None:
            self.bias = self.bias * affine.scale
        self.add_to_bias(affine.shift)

    def fold_before(self, affine: Affine) -> None:
        """Applies ``scale * x + shift`` to its input x."""
        (kernel,) = self.kernels
        self.add_to_bias(affine.shift @ kernel.reshape(-1, *kernel.shape[-2:]).sum(0))
        self.kernels = [kernel * affine.scale[:, None]]


def affine_of(layer: keras.layers.BatchNormalization) -> Affine:
    """Batch normalization at inference, as an affine function."""
    variance = _array(layer.moving_variance)
    scale = 1 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        scale = scale * _array(layer.gamma)
    shift = -_array(layer.moving_mean) * scale
    if layer.center:
        shift = shift + _array(layer.beta)
    return Affine(scale, shift)


def _array(weight: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(weight)).astype(np.float64)


def _activation(layer: Any) -> Any:
    """A layer's activation, None for the one that does nothing."""
    return None if layer.activation in (None, keras.activations.linear) else layer.activation


def lower(layer: Any, rank: int) -> FusedConvolution | Stock | None:
    """A layer that convolves, as arrays; None for any other, and where `obstacle` gives a reason.

    Args:
        layer: anything.
        rank: the number of axes of its input.
    """
    kind = type(layer)
    if kind not in _LOWER or obstacle(layer) is not None:
        return None
    return _LOWER[kind](layer, rank)


def obstacle(layer: Any) -> str | None:
    """Why a layer cannot be expressed by kernels, bias and activation; None where it can.

    Example:
        >>> obstacle(keras.layers.Dense(3, activation=keras.layers.PReLU()))
        'its activation is a layer'
    """
    if type(layer) not in _LOWER:
        return None
    if getattr(layer, "quantization_mode", None) is not None:
        return "it is quantised"
    if isinstance(layer.activation, keras.layers.Layer):
        return "its activation is a layer"
    if computes_otherwise(layer):
        return OTHERWISE
    return None if layer.autocast else "it takes inputs of any dtype, without a cast"


def _common(layer: Any) -> tuple[Any, str, np.ndarray | None, Any]:
    bias = _array(layer.bias) if layer.use_bias else None
    return layer, getattr(layer, "data_format", "channels_last"), bias, _activation(layer)


def _geometry(layer: Any) -> tuple[Any, ...]:
    return tuple(layer.strides), layer.padding, tuple(layer.dilation_rate)


def _depthwise_conv2d(layer: Any, rank: int) -> FusedConvolution:
    return FusedConvolution(*_common(layer), _array(layer.kernel), None, *_geometry(layer))


def _separable_conv2d(layer: Any, rank: int) -> FusedConvolution:
    kernels = _array(layer.depthwise_kernel), _array(layer.pointwise_kernel)
    return FusedConvolution(*_common(layer), *kernels, *_geometry(layer))


def _conv2d(layer: Any, rank: int) -> FusedConvolution | Stock:
    kernel = _array(layer.kernel)
    height, width, depth, filters = kernel.shape
    if (height, width) == (1, 1) and layer.groups == 1:
        strides, _, _ = _geometry(layer)
        return FusedConvolution(*_common(layer), None, kernel, strides, "valid", (1, 1))
    if depth == 1 and layer.groups > 1:  # a depthwise convolution by another name
        depthwise = kernel.reshape(height, width, layer.groups, filters // layer.groups)
        return FusedConvolution(*_common(layer), depthwise, None, *_geometry(layer))
    small = height * width * depth <= _MOST_PATCHES
    if layer.groups == 1 and layer.data_format == "channels_last" and small:
        return FusedConvolution(*_common(layer), None, kernel, *_geometry(layer))
    return Stock(*_common(layer), [kernel])


def _dense(layer: Any, rank: int) -> FusedConvolution | Stock:
    kernel = _array(layer.kernel)
    if rank == 4:
        return FusedConvolution(*_common(layer), None, kernel[None, None], (1, 1), "valid", (1, 1))
    return Stock(*_common(layer), [kernel])


def _one_kernel(layer: Any, rank: int) -> Stock:
    return Stock(*_common(layer), [_array(layer.kernel)])


def _separable_conv1d(layer: Any, rank: int) -> Stock:
    kernels = [_array(layer.depthwise_kernel), _array(layer.pointwise_kernel)]
    return Stock(*_common(layer), kernels)


_LOWER = {
    keras.layers.DepthwiseConv2D: _depthwise_conv2d,
    layers.DepthwiseConv2D: _depthwise_conv2d,
    keras.layers.SeparableConv2D: _separable_conv2d,
    layers.SeparableConv2D: _separable_conv2d,
    keras.layers.Conv2D: _conv2d,
    layers.Conv2D: _conv2d,
    keras.layers.Dense: _dense,
    keras.layers.Conv1D: _one_kernel,
    keras.layers.Conv3D: _one_kernel,
    keras.layers.DepthwiseConv1D: _one_kernel,
    layers.DepthwiseConv1D: _one_kernel,
    keras.layers.SeparableConv1D: _separable_conv1d,
    layers.SeparableConv1D: _separable_conv1d,
}
