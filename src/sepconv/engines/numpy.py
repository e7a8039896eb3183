"""NumPy as one of Keras' engines: inference, with the same checks and dtypes as the others.

`sepconv.functional` is the NumPy API and takes float32 and float64 alone. Keras' dtype policies
also have half types here, as on every engine, and those are computed in float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sepconv import functional
from sepconv.arrays import as_array
from sepconv.engines.front import functions, fused_function
from sepconv.fused import Block, Operands, fuse
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
    dtype = x.dtype
    arrays: list[Any] = [x, depthwise_kernel, pointwise_kernel, bias]
    if dtype.itemsize < 4:
        arrays = [None if a is None else a.astype(np.float32) for a in arrays]
    x, depthwise_kernel, pointwise_kernel, bias = arrays
    y = functional.convolve(
        as_array("x", x), depthwise_kernel, pointwise_kernel, bias, spec, activation
    )
    return y.astype(dtype, copy=False)


depthwise_conv2d, separable_conv2d, depthwise_conv1d, separable_conv1d = functions(
    "NumPy", _convolve, np.asarray
)


def _fuse(operands: Operands, form: Block) -> np.ndarray:
    dtype = operands.x.dtype
    if dtype.itemsize < 4:
        operands = operands.map(lambda a: a.astype(np.float32))
    return fuse(operands, form).astype(dtype, copy=False)


fused_conv2d = fused_function("NumPy", _fuse, np.asarray)
