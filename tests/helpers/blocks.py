"""Random blocks of an inference network, the same at every run."""

from __future__ import annotations

from typing import Any

import numpy as np

from sepconv.fused import BlockSpec, Operands, block_spec, is_ordinary
from sepconv.geometry import conv_spec

ACTIVATIONS = (None, "relu", "relu6", "hard_silu", "silu")
ARRAYS = ("depthwise_kernel", "pointwise_kernel", "depthwise_bias", "bias", "residual")


def random_block(seed: int, dtype: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """(arrays, options) for `fused_conv2d`; every kind, layout and activation comes up in turn."""
    rng = np.random.default_rng(seed)
    kind = ("both", "both", "depthwise", "pointwise")[seed % 4]
    if kind == "pointwise" and seed // 16 % 2 == 1:
        kind = "ordinary"
    first = seed // 4 % 2 == 1
    dtype = dtype or ("float32", "float64")[seed // 8 % 2]
    kernel = tuple(int(k) for k in rng.integers(1, 6, 2))
    if kind == "ordinary" and kernel == (1, 1):
        kernel = (1, 2)
    multiplier = int(rng.choice([1, 1, 2, 3]))
    channels, filters = (int(c) for c in rng.choice([1, 3, 7, 8, 16, 17, 33], 2))
    size = tuple(int(n) for n in rng.integers(1, 12, 2))
    strides = tuple(int(s) for s in rng.integers(1, 3, 2))
    padding: Any = "same"
    if kind != "pointwise" and rng.random() < 0.4:
        pads = [(k // 2, k) for k in kernel]
        padding = tuple(pads)
    options = {
        "strides": strides,
        "padding": padding,
        "dilation_rate": int(rng.integers(1, 3)) if strides == (1, 1) and padding == "same" else 1,
        "data_format": "channels_first" if first else "channels_last",
        "activation": ACTIVATIONS[seed % 5],
    }
    batch = int(rng.choice([1, 2]))

    def image(height: int, width: int, depth: int) -> np.ndarray:
        shape = (batch, depth, height, width) if first else (batch, height, width, depth)
        return 2 * rng.standard_normal(shape)

    arrays: dict[str, Any] = {"x": image(*size, channels)}
    middle = channels
    if kind in ("both", "depthwise"):
        arrays["depthwise_kernel"] = rng.standard_normal((*kernel, channels, multiplier))
        middle = channels * multiplier
    outputs = middle
    if kind != "depthwise":
        size_of_it = kernel if kind == "ordinary" else (1, 1)
        arrays["pointwise_kernel"] = rng.standard_normal((*size_of_it, middle, filters))
        outputs = filters
    if kind == "both":
        options["depthwise_activation"] = ACTIVATIONS[seed // 5 % 5]
        if rng.random() < 0.7:
            arrays["depthwise_bias"] = rng.standard_normal(middle)
    if rng.random() < 0.7:
        arrays["bias"] = rng.standard_normal(outputs)
    if kind != "depthwise" and rng.random() < 0.6:
        if padding == "same":
            out = [-(-n // s) for n, s in zip(size, strides, strict=True)]
        else:
            out = [
                (n + sum(p) - k) // s + 1
                for n, p, k, s in zip(size, padding, kernel, strides, strict=True)
            ]
        arrays["residual"] = image(*out, outputs)
    return {name: np.ascontiguousarray(a, dtype) for name, a in arrays.items()}, options


def selecting_kernel(
    kernel_height: int, kernel_width: int, channels: int, dtype: Any
) -> np.ndarray:
    """A depthwise kernel whose output channel c * taps + tap is input channel c under that tap."""
    taps = kernel_height * kernel_width
    eye = np.eye(taps, dtype=dtype).reshape(kernel_height, kernel_width, 1, taps)
    return np.tile(eye, (1, 1, channels, 1))


def block_of(arrays: dict[str, Any], options: dict[str, Any]) -> BlockSpec:
    """What an engine is told of a random block."""
    spec = conv_spec(*(options[n] for n in ("strides", "padding", "dilation_rate", "data_format")))
    activations = options.get("depthwise_activation"), options["activation"]
    operands = Operands(**arrays)
    return block_spec(operands, spec, *activations, ordinary=is_ordinary(operands))[0]
