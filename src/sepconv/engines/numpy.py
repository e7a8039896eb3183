"""NumPy as one of Keras' engines: inference, with the same checks as the others."""

from __future__ import annotations

import numpy as np

from sepconv import functional
from sepconv.arrays import as_array
from sepconv.engines.front import functions, fused_function
from sepconv.fused import fuse
from sepconv.geometry import ConvSpec

__all__ = [
    "depthwise_conv1d",
    "depthwise_conv2d",
    "fused_conv2d",
    "separable_conv1d",
    "separable_conv2d",
]


def _convolve(
    x: np.ndarray,
    depthwise_kernel: np.ndarray,
    pointwise_kernel: np.ndarray | None,
    bias: np.ndarray | None,
    spec: ConvSpec,
    activation: str | None,
) -> np.ndarray:
    return functional.convolve(
        as_array("x", x), depthwise_kernel, pointwise_kernel, bias, spec, activation
    )


depthwise_conv2d, separable_conv2d, depthwise_conv1d, separable_conv1d = functions(
    "NumPy", _convolve, np.asarray
)
fused_conv2d = fused_function("NumPy", fuse, np.asarray)
