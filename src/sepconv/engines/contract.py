"""The functions of an engine's adapter; mypy checks each adapter against them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sepconv.fused import BlockSpec, Operands
from sepconv.geometry import ConvSpec
from sepconv.program.embedded import Embedded

if TYPE_CHECKING:
    from sepconv.engines import numpy
    from sepconv.engines.jax import engine as jax
    from sepconv.engines.tensorflow import engine as tensorflow
    from sepconv.engines.torch import engine as torch

__all__ = ["BatchNorm", "Engine", "Pointwise"]


class Pointwise(Protocol):
    """A 1x1 convolution."""

    def __call__(self, x: Any, kernel: Any, *, data_format: str) -> Any:
        """Multiplies the channels of every pixel of `x` by the matrix ``kernel[0, 0]``."""


class BatchNorm(Protocol):
    """Batch normalization in training."""

    def __call__(
        self, x: Any, gamma: Any, beta: Any, *, axis: int, epsilon: float
    ) -> tuple[Any, Any, Any]:
        """The result, and the mean and the variance of each channel of `x`."""


class Engine(Protocol):
    """An adapter, which is a module: differentiable functions of an engine's own arrays.

    Their arguments have been checked; see `sepconv.engines.front`.
    """

    @property
    def name(self) -> str:
        """The engine's name as its users write it."""

    def as_array(self, value: Any, /) -> Any:
        """An array of the engine from what a user passed."""

    def is_traced(self) -> bool:
        """Whether a compiler is reading the Python code that runs.

        It must then meet neither caches nor C++, and `convolve` and `fuse` check shapes themselves.
        """

    def convolve(
        self,
        x: Any,
        depthwise_kernel: Any,
        pointwise_kernel: Any,
        bias: Any,
        spec: ConvSpec,
        activation: str | None,
    ) -> Any:
        """A depthwise convolution of 4-D arrays, or with `pointwise_kernel` a separable one."""

    def fuse(self, operands: Operands, block: BlockSpec, /) -> Any:
        """A block of an inference network."""

    def run_program(
        self, embedded: Embedded, file: Any | None, inputs: Sequence[Any], /
    ) -> list[Any]:
        """A program's results, without derivatives: an error where one is asked for.

        `file` is what holds the program's file, an array of the engine that may be a tracer's, and
        None where the program is given for good.
        """

    def file_bytes(self, array: Any, /) -> np.ndarray:
        """What an engine's array of bytes holds now, also while a function is traced."""

    @property
    def pointwise(self) -> Pointwise | None:
        """The 1x1 convolution; None where the engine's own is as fast."""

    @property
    def batch_norm(self) -> BatchNorm | None:
        """Batch normalization; None where the engine does not train."""


if TYPE_CHECKING:
    _JAX: Engine = jax
    _TORCH: Engine = torch
    _TENSORFLOW: Engine = tensorflow
    _NUMPY: Engine = numpy
