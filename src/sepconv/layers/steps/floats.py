"""The steps of float networks in Keras' operations, as `sepconv.program.reference` says.

But for convolutions and pooling, they also take Keras' symbolic tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from sepconv.geometry import ConvSpec
from sepconv.layers.steps import images
from sepconv.layers.steps.functions import BINARY_FUNCTIONS, UNARY_FUNCTIONS
from sepconv.program.network import Step

__all__ = ["compute"]

Tensors = Mapping[str, Any]
Attributes = Mapping[str, Any]


def compute(step: Step, weights: Tensors, inputs: Sequence[Any], outside: float = -math.inf) -> Any:
    """What a step of a float network gives.

    Args:
        step: the step.
        weights: its tensors, by their parts.
        inputs: its inputs.
        outside: what is below all numbers that are compared, for the padding of maxima.
    """
    if step.operation == "pool":
        return _pool(step.attributes, inputs[0], outside)
    return _STEPS[step.operation](step.attributes, weights, *inputs)


def _activated(y: Any, activation: str) -> Any:
    if activation == "none":
        return y
    if activation == "relu6":
        return UNARY_FUNCTIONS["relu"](y, 0.0, 6.0, 0.0)
    return UNARY_FUNCTIONS[activation](y, 0.0, math.inf, 0.0)


def _convolution(given: Attributes, weights: Tensors, x: Any, residual: Any = None) -> Any:
    spec, rank = ConvSpec(*given["spec"]), len(x.shape)
    y = images.as_image(x, spec)
    plain = ConvSpec(1, 1, 1, 1, 0, 0, 0, 0, 0, spec.channels_first)
    if "depthwise_kernel" in weights:
        y = images.convolve(y, weights["depthwise_kernel"], spec, depthwise=True)
        spec = plain
        if "pointwise_kernel" in weights:
            y = y + weights["depthwise_bias"] if "depthwise_bias" in weights else y
            y = _activated(y, given["depthwise_activation"])
    if "pointwise_kernel" in weights:
        y = images.convolve(y, weights["pointwise_kernel"], spec, depthwise=False)
    y = y + weights["bias"] if "bias" in weights else y
    if residual is not None:
        y = y + images.as_image(residual, spec)
    return images.from_image(_activated(y, given["activation"]), spec, rank)


def _dense(given: Attributes, weights: Tensors, x: Any, residual: Any = None) -> Any:
    y = ops.matmul(x, weights["kernel"])
    y = y + weights["bias"] if "bias" in weights else y
    return _activated(y if residual is None else y + residual, given["activation"])


def _scale(given: Attributes, weights: Tensors, x: Any) -> Any:
    shape = [-1 if axis == given["axis"] else 1 for axis in range(len(x.shape))]
    if "scale" in weights:
        x = x * ops.reshape(weights["scale"], shape)
    return x + ops.reshape(weights["shift"], shape) if "shift" in weights else x


def _unary(given: Attributes, weights: Tensors, x: Any) -> Any:
    return UNARY_FUNCTIONS[given["function"]](x, given["a"], given["b"], given["c"])


def _binary(given: Attributes, weights: Tensors, a: Any, b: Any) -> Any:
    return BINARY_FUNCTIONS[given["function"]](a, b)


def _pool(given: Attributes, x: Any, outside: float) -> Any:
    spec = ConvSpec(*given["spec"])
    image = images.as_image(x, spec)
    if given["function"] == "max":
        y = images.greatest(image, given["window"], spec, outside)
    else:
        total, counts = images.sums(image, given["window"], spec)
        y = total / counts
    return images.from_image(y, spec, len(x.shape))


_REDUCTIONS = {"mean": ops.mean, "max": ops.max, "min": ops.min, "sum": ops.sum}


def _reduce(given: Attributes, weights: Tensors, x: Any) -> Any:
    function = _REDUCTIONS[given["function"]]
    return function(x, axis=tuple(given["axes"]), keepdims=given["keepdims"])


def _concatenate(given: Attributes, weights: Tensors, *xs: Any) -> Any:
    return ops.concatenate(xs, given["axis"])


def _pad(given: Attributes, weights: Tensors, x: Any) -> Any:
    around = list(zip(given["before"], given["after"], strict=True))
    return ops.pad(x, around, constant_values=given["value"])


def _slice(given: Attributes, weights: Tensors, x: Any) -> Any:
    bounds = zip(given["starts"], given["stops"], given["steps"], strict=True)
    return x[tuple(slice(*bound) for bound in bounds)]


def _transpose(given: Attributes, weights: Tensors, x: Any) -> Any:
    return ops.transpose(x, tuple(given["permutation"]))


def _reshape(given: Attributes, weights: Tensors, x: Any) -> Any:
    sizes = [ops.shape(x)[i] if n == 0 else n for i, n in enumerate(given["shape"])]
    if -1 not in sizes and None in sizes:
        sizes[sizes.index(None)] = -1
    return ops.reshape(x, sizes)


def _resize(given: Attributes, weights: Tensors, x: Any) -> Any:
    first = 2 if given["channels_first"] else 1
    for axis, factor in zip((first, first + 1), given["factors"], strict=True):
        if given["interpolation"] == "nearest":
            x = ops.repeat(x, factor, axis)
            continue
        size = x.shape[axis]
        # Where the centers of the new pixels are among those of the old ones.
        places = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
        before = np.minimum(places.astype("int32"), max(size - 2, 0))
        after = np.minimum(before + 1, size - 1)
        share = (places - before).reshape([-1 if i == axis else 1 for i in range(len(x.shape))])
        share = share.astype("float32")
        x = ops.take(x, before, axis) * (1 - share) + ops.take(x, after, axis) * share
    return x


def _layer_normalization(given: Attributes, weights: Tensors, x: Any) -> Any:
    rank = len(x.shape)
    axes = tuple(range(rank - given["axes"], rank))
    centered = x - ops.mean(x, axes, keepdims=True)
    variance = ops.mean(ops.square(centered), axes, keepdims=True)
    y = centered * ops.rsqrt(variance + given["epsilon"])
    y = y * weights["gamma"] if "gamma" in weights else y
    return y + weights["beta"] if "beta" in weights else y


def _softmax(given: Attributes, weights: Tensors, x: Any) -> Any:
    return (ops.log_softmax if given["logarithm"] else ops.softmax)(x, axis=given["axis"])


def _constant(given: Attributes, weights: Tensors) -> Any:
    return weights["value"]


_STEPS: dict[str, Callable[..., Any]] = {
    "convolution": _convolution,
    "dense": _dense,
    "scale": _scale,
    "unary": _unary,
    "binary": _binary,
    "reduce": _reduce,
    "concatenate": _concatenate,
    "pad": _pad,
    "slice": _slice,
    "transpose": _transpose,
    "reshape": _reshape,
    "resize": _resize,
    "layer_normalization": _layer_normalization,
    "softmax": _softmax,
    "constant": _constant,
}
