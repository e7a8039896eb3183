"""The reference: what every step of a network means, in NumPy and float64, written to be read.

Whatever computes programs is compared with these functions. Arithmetic and sums are in float64.
Results are rounded once: those of bfloat16 after every step, others to the network's dtype at the
end. The steps of int8 are exact, and `sepconv.program.quantized_reference` says what they mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sepconv.geometry import ConvSpec
from sepconv.program import quantized_reference
from sepconv.program.dtypes import as_float64, dtype_of, round_to, tensor_dtype
from sepconv.program.network import QUANTIZED_OPERATIONS, Network, Step
from sepconv.reference import fused_conv2d

__all__ = ["compute", "run", "values"]

Arrays = Mapping[str, np.ndarray]
Attributes = Mapping[str, Any]


def run(network: Network, *inputs: Any) -> list[np.ndarray]:
    """The outputs of a network.

    Args:
        network: what to compute.
        *inputs: an array for each of its inputs.

    Returns:
        An array for each of its outputs, of the network's dtype.

    Raises:
        ValueError: there are more or fewer inputs than the network's, a shape does not fit, or a
            step is of a kind that is not known.

    Example:
        >>> from sepconv.program.network import Input
        >>> double = Step("unary", "double", [0], {"function": "linear", "a": 2, "b": 0, "c": 0})
        >>> network = Network("float32", [Input("x", (None,))], [double], [1], ["double"], [])
        >>> run(network, [1, 2])
        [array([2., 4.], dtype=float32)]
    """
    computed = values(network, *inputs)
    return [computed[number].astype(network.dtype) for number in network.outputs]


def values(network: Network, *inputs: Any) -> list[np.ndarray]:
    """All values of a network in float64: its inputs, and what each step gives.

    Args:
        network: as for `run`.
        *inputs: see there.

    Raises:
        ValueError: see there.

    Example:
        >>> from sepconv.program.network import Input
        >>> square = Step("unary", "square", [0], {"function": "square", "a": 0, "b": 0, "c": 0})
        >>> network = Network("float64", [Input("x", (2,))], [square], [1], ["square"], [])
        >>> values(network, [2, 3])
        [array([2., 3.]), array([4., 9.])]
    """
    if len(inputs) != len(network.inputs):
        raise ValueError(
            f"The network takes {len(network.inputs)} inputs: "
            f"{[entry.name for entry in network.inputs]}. Received: {len(inputs)}"
        )
    computed = []
    for entry, given in zip(network.inputs, inputs, strict=True):
        # What a network gets is rounded to its dtype, as its weights are.
        array = np.asarray(given).astype(network.dtype).astype(np.float64)
        fits = len(array.shape) == len(entry.shape) and all(
            size in (None, actual) for size, actual in zip(entry.shape, array.shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"The input {entry.name!r} must have the shape {tuple(entry.shape)}, where None "
                f"may be any size. Received: shape={array.shape}"
            )
        computed.append(array)
    dtypes = [network.dtype] * len(inputs)
    for step in network.steps:
        given = [computed[i] for i in step.inputs]
        tensors = {part: tensor_dtype(network.tensors[i]) for part, i in step.weights.items()}
        dtypes.append(dtype_of(step, tensors, [dtypes[i] for i in step.inputs]))
        if step.operation in QUANTIZED_OPERATIONS:
            value = _quantized(network, step, given)
        else:
            weights = {part: as_float64(network.tensors[i]) for part, i in step.weights.items()}
            value = compute(step, weights, given, dtypes[-1])
        computed.append(round_to(dtypes[-1], value) if dtypes[-1] == "bfloat16" else value)
    return computed


def _quantized(network: Network, step: Step, inputs: list[np.ndarray]) -> np.ndarray:
    """What a step of int8 gives, as float64."""
    weights = {part: network.tensors[i] for part, i in step.weights.items()}
    dtype = np.float32 if step.operation == "quantize" else np.uint8
    given = [x.astype(dtype) for x in inputs]
    return quantized_reference.compute(step, weights, given).astype(np.float64)


def compute(
    step: Step, weights: Arrays, inputs: list[np.ndarray], dtype: str = "float64"
) -> np.ndarray:
    """What one step gives, of float64 arrays: its weights, by their part, and its inputs.

    The result is not rounded. What lies between the two parts of a separable convolution of
    bfloat16 is.
    """
    if step.operation not in _FUNCTIONS:
        raise ValueError(
            f"The step {step.name!r} must be one of {sorted(_FUNCTIONS)}. "
            f"Received: operation={step.operation!r}"
        )
    # Infinities and NaN are results like others.
    with np.errstate(all="ignore"):
        if dtype == "bfloat16" and {"depthwise_kernel", "pointwise_kernel"} <= weights.keys():
            return _rounded_between(step.attributes, weights, *inputs)
        return np.asarray(_FUNCTIONS[step.operation](step.attributes, weights, *inputs))


def _activate(x: np.ndarray, activation: str) -> np.ndarray:
    return x if activation == "none" else UNARY_FUNCTIONS[activation](x, 0, _LARGEST[activation], 0)


#: The number b of an activation of a convolution: the largest result, where there is one.
_LARGEST = {"relu": np.inf, "relu6": 6.0, "hard_silu": 0.0, "silu": 0.0}


def _sigmoid(x: np.ndarray) -> np.ndarray:
    # Both sides of zero, so that no exponential overflows.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _erf(x: np.ndarray) -> np.ndarray:
    """The error function of every element, by the standard library's."""
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(x, 0)


def _hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(x + 3, 0, 6) / 6


def _relu(x: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
    below = np.zeros_like(x) if a == 0 else a * (x - c)
    return np.where(np.isnan(x), x, np.where(x >= b, b, np.where(x >= c, x, below)))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


#: The scale and alpha of `selu`.
_SELU = 1.0507009873554805, 1.6732632423543772

#: Every function of `sepconv.program.network.UNARY`, with its numbers a, b and c.
UNARY_FUNCTIONS: dict[str, Callable[[np.ndarray, float, float, float], np.ndarray]] = {
    "relu": _relu,
    "relu6": _relu,  # as an activation of a convolution
    "sigmoid": lambda x, a, b, c: _sigmoid(x),
    "hard_sigmoid": lambda x, a, b, c: _hard_sigmoid(x),
    "silu": lambda x, a, b, c: x * _sigmoid(x),
    "hard_silu": lambda x, a, b, c: x * _hard_sigmoid(x),
    "tanh": lambda x, a, b, c: np.tanh(x),
    "gelu": lambda x, a, b, c: x / 2 * (1 + _erf(x / np.sqrt(2))),
    "gelu_tanh": lambda x, a, b, c: _gelu_tanh(x),
    "elu": lambda x, a, b, c: np.where(x < 0, a * np.expm1(x), x),
    "selu": lambda x, a, b, c: _SELU[0] * np.where(x < 0, _SELU[1] * np.expm1(x), x),
    "celu": lambda x, a, b, c: np.where(x < 0, a * np.expm1(x / a), x),
    "softplus": lambda x, a, b, c: _softplus(x),
    "softsign": lambda x, a, b, c: x / (1 + np.abs(x)),
    "mish": lambda x, a, b, c: x * np.tanh(_softplus(x)),
    "exp": lambda x, a, b, c: np.exp(x),
    "log": lambda x, a, b, c: np.log(x),
    "sqrt": lambda x, a, b, c: np.sqrt(x),
    "rsqrt": lambda x, a, b, c: 1 / np.sqrt(x),
    "square": lambda x, a, b, c: x * x,
    "abs": lambda x, a, b, c: np.abs(x),
    "negative": lambda x, a, b, c: -x,
    "reciprocal": lambda x, a, b, c: 1 / x,
    "erf": lambda x, a, b, c: _erf(x),
    "sin": lambda x, a, b, c: np.sin(x),
    "cos": lambda x, a, b, c: np.cos(x),
    "floor": lambda x, a, b, c: np.floor(x),
    "ceil": lambda x, a, b, c: np.ceil(x),
    "round": lambda x, a, b, c: np.round(x),
    "sign": lambda x, a, b, c: np.sign(x),
    "clip": lambda x, a, b, c: np.minimum(np.maximum(x, a), b),
    "linear": lambda x, a, b, c: a * x + b,
    "soft_shrink": lambda x, a, b, c: np.where(x > a, x - a, np.where(x < -a, x + a, 0 * x)),
    "hard_shrink": lambda x, a, b, c: np.where(np.abs(x) <= a, 0, x),
    "threshold": lambda x, a, b, c: np.where(x > a, x, b),
    "squareplus": lambda x, a, b, c: (x + np.sqrt(x * x + a)) / 2,
    "sparse_plus": lambda x, a, b, c: np.where(x <= -1, 0, np.where(x >= 1, x, (x + 1) ** 2 / 4)),
}

_BINARY_FUNCTIONS = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "power": np.power,
}

_REDUCTIONS = {"mean": np.mean, "max": np.max, "min": np.min, "sum": np.sum}


def _options(spec: ConvSpec) -> dict[str, Any]:
    """A spec as arguments of `sepconv.reference`."""
    explicit = (spec.pad_top, spec.pad_bottom), (spec.pad_left, spec.pad_right)
    return {
        "strides": (spec.stride_h, spec.stride_w),
        "padding": "same" if spec.same else explicit,
        "dilation_rate": (spec.dilation_h, spec.dilation_w),
        "data_format": spec.data_format,
    }


def _as_image(x: np.ndarray, spec: ConvSpec) -> np.ndarray:
    """[N, L, C] or [N, C, L] as an image one pixel high."""
    return np.expand_dims(x, 2 if spec.channels_first else 1) if x.ndim == 3 else x


def _from_image(y: np.ndarray, spec: ConvSpec, rank: int) -> np.ndarray:
    return y.squeeze(2 if spec.channels_first else 1) if rank == 3 else y


def _convolution(
    given: Attributes, weights: Arrays, x: np.ndarray, residual: np.ndarray | None = None
) -> np.ndarray:
    spec = ConvSpec(*given["spec"])
    kernels: dict[str, Any] = dict(weights)
    y = fused_conv2d(
        _as_image(x, spec),
        **kernels,
        residual=None if residual is None else _as_image(residual, spec),
        depthwise_activation=given["depthwise_activation"],
        activation=given["activation"],
        **_options(spec),
    )
    return _from_image(y, spec, x.ndim)


def _rounded_between(
    given: Attributes, weights: Arrays, x: np.ndarray, residual: np.ndarray | None = None
) -> np.ndarray:
    """A separable convolution of bfloat16, whose depthwise result is of it, too."""
    first = {"depthwise_kernel": weights["depthwise_kernel"]}
    if "depthwise_bias" in weights:
        first["bias"] = weights["depthwise_bias"]
    middle = _convolution({**given, "activation": given["depthwise_activation"]}, first, x)
    spec = ConvSpec(*given["spec"])
    plain = ConvSpec(1, 1, 1, 1, 0, 0, 0, 0, 0, spec.channels_first)
    second = {part: weights[part] for part in ("pointwise_kernel", "bias") if part in weights}
    return _convolution({**given, "spec": plain}, second, round_to("bfloat16", middle), residual)


def _dense(
    given: Attributes, weights: Arrays, x: np.ndarray, residual: np.ndarray | None = None
) -> np.ndarray:
    y = x @ weights["kernel"] + weights.get("bias", 0.0)
    return _activate(y if residual is None else y + residual, given["activation"])


def _scale(given: Attributes, weights: Arrays, x: np.ndarray) -> np.ndarray:
    shape = [-1 if axis == given["axis"] else 1 for axis in range(x.ndim)]
    if "scale" in weights:
        x = x * weights["scale"].reshape(shape)
    return x + weights["shift"].reshape(shape) if "shift" in weights else x


def _unary(given: Attributes, weights: Arrays, x: np.ndarray) -> np.ndarray:
    return UNARY_FUNCTIONS[given["function"]](x, given["a"], given["b"], given["c"])


def _binary(given: Attributes, weights: Arrays, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _BINARY_FUNCTIONS[given["function"]](a, b)


def _pool(given: Attributes, weights: Arrays, x: np.ndarray) -> np.ndarray:
    spec = ConvSpec(*given["spec"])
    image = _as_image(x, spec)
    if spec.channels_first:
        image = image.transpose(0, 2, 3, 1)
    largest = given["function"] == "max"
    pads, counts = [], []
    for size, k, stride, dilation, around in zip(
        image.shape[1:3],
        given["window"],
        spec[0:2],
        spec[2:4],
        (spec[5:7], spec[7:9]),
        strict=True,
    ):
        reach = (k - 1) * dilation + 1
        if spec.same:
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            around = total // 2, total - total // 2
        pads.append(tuple(around))
        counts.append((size + sum(around) - reach) // stride + 1)
    padded = np.pad(image, [(0, 0), *pads, (0, 0)], constant_values=-np.inf if largest else 0)
    inside = np.pad(np.ones((1, *image.shape[1:3], 1)), [(0, 0), *pads, (0, 0)])
    y = np.full((image.shape[0], *counts, image.shape[3]), -np.inf if largest else 0.0)
    pixels = np.zeros((1, *counts, 1))
    for i in range(given["window"][0]):
        for j in range(given["window"][1]):
            seen = tuple(
                slice(tap * dilation, tap * dilation + (count - 1) * stride + 1, stride)
                for tap, dilation, count, stride in zip(
                    (i, j), spec[2:4], counts, spec[0:2], strict=True
                )
            )
            tap = padded[(slice(None), *seen)]
            y = np.maximum(y, tap) if largest else y + tap
            pixels = pixels + inside[(slice(None), *seen)]
    if not largest:
        y = y / pixels
    if spec.channels_first:
        y = y.transpose(0, 3, 1, 2)
    return _from_image(y, spec, x.ndim)


def _reduce(given: Attributes, weights: Arrays, x: np.ndarray) -> np.ndarray:
    function: Any = _REDUCTIONS[given["function"]]
    return function(x, axis=tuple(given["axes"]), keepdims=given["keepdims"])


def _concatenate(given: Attributes, weights: Arrays, *xs: np.ndarray) -> np.ndarray:
    return np.concatenate(xs, given["axis"])


def _pad(given: Attributes, weights: Arrays, x: np.ndarray) -> np.ndarray:
    around = list(zip(given["before"], given["after"], strict=True))
    return np.pad(x, around, constant_values=given["value"])


def _slice(given: Attributes, weights: Arrays, x: np.ndarray) -> np.ndarray:
    bounds = zip(given["starts"], given["stops"], given["steps"], strict=True)
    return x[tuple(slice(*bound) for bound in bounds)]


def _transpose(given: Attributes, weights: Arrays, x: np.ndarray) -> np.ndarray:
    return x.transpose(given["permutation"])


def _reshape(given: Attributes, weights: Arrays, x: np.ndarray) -> np.ndarray:
    wanted = given["shape"]
    rest = math.prod(n for i, n in enumerate(x.shape) if i >= len(wanted) or wanted[i] != 0)
    left = rest // math.prod(n for n in wanted if n > 0)
    return x.reshape(
        [x.shape[i] if n == 0 else left if n == -1 else n for i, n in enumerate(wanted)]
    )


def _resize(given: Attributes, weights: Arrays, x: np.ndarray) -> np.ndarray:
    first = 2 if given["channels_first"] else 1
    for axis, factor in zip((first, first + 1), given["factors"], strict=True):
        size = x.shape[axis]
        if given["interpolation"] == "nearest":
            x = np.repeat(x, factor, axis)
            continue
        # Where the centers of the new pixels are among those of the old ones.
        places = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
        before = np.minimum(places.astype(int), max(size - 2, 0))
        after = np.minimum(before + 1, size - 1)
        share = (places - before).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        x = x.take(before, axis) * (1 - share) + x.take(after, axis) * share
    return x


def _layer_normalization(given: Attributes, weights: Arrays, x: np.ndarray) -> np.ndarray:
    axes = tuple(range(x.ndim - given["axes"], x.ndim))
    centered = x - x.mean(axes, keepdims=True)
    variance = (centered**2).mean(axes, keepdims=True)
    y = centered / np.sqrt(variance + given["epsilon"])
    return y * weights.get("gamma", 1.0) + weights.get("beta", 0.0)


def _softmax(given: Attributes, weights: Arrays, x: np.ndarray) -> np.ndarray:
    axis = given["axis"]
    x = x - x.max(axis, keepdims=True, initial=-np.inf)
    total = np.exp(x).sum(axis, keepdims=True)
    return x - np.log(total) if given["logarithm"] else np.exp(x) / total


def _constant(given: Attributes, weights: Arrays) -> np.ndarray:
    return weights["value"]


def _cast(given: Attributes, weights: Arrays, x: np.ndarray) -> np.ndarray:
    return round_to(given["dtype"], x)


_FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "convolution": _convolution,
    "dense": _dense,
    "scale": _scale,
    "unary": _unary,
    "binary": _binary,
    "pool": _pool,
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
    "cast": _cast,
}
