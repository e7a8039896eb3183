"""NumPy as one of Keras' engines: inference, with the same checks as the others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from sepconv import convolution, fused
from sepconv.arrays import as_array as dense
from sepconv.engines.front import functions, fused_function
from sepconv.fused import BlockSpec, Operands
from sepconv.geometry import ConvSpec
from sepconv.program.embedded import Embedded
from sepconv.program.file import identity

__all__ = [
    "as_array",
    "batch_norm",
    "convolve",
    "depthwise_conv1d",
    "depthwise_conv2d",
    "file_bytes",
    "fuse",
    "fused_conv2d",
    "is_traced",
    "name",
    "pointwise",
    "run_program",
    "separable_conv1d",
    "separable_conv2d",
]

name = "NumPy"
as_array = np.asarray
pointwise = batch_norm = None  # a matrix product is quick enough, and nothing trains


def is_traced() -> bool:
    """False: nothing compiles NumPy's programs."""
    return False


def convolve(
    x: np.ndarray,
    depthwise_kernel: np.ndarray,
    pointwise_kernel: np.ndarray | None,
    bias: np.ndarray | None,
    spec: ConvSpec,
    activation: str | None,
) -> np.ndarray:
    """See `sepconv.engines.contract`."""
    return convolution.convolve(
        dense("x", x), depthwise_kernel, pointwise_kernel, bias, spec, activation
    )


def fuse(operands: Operands, block: BlockSpec) -> np.ndarray:
    """See `sepconv.engines.contract`."""
    return fused.fuse(operands, block)


def run_program(
    embedded: Embedded, file: np.ndarray | None, inputs: Sequence[Any]
) -> list[np.ndarray]:
    """See `sepconv.engines.contract`."""
    return embedded.run([np.asarray(x) for x in inputs], None if file is None else identity(file))


def file_bytes(array: np.ndarray) -> np.ndarray:
    """See `sepconv.engines.contract`."""
    return array


_this: Any = sys.modules[__name__]
depthwise_conv2d, separable_conv2d, depthwise_conv1d, separable_conv1d = functions(_this)
fused_conv2d = fused_function(_this)
