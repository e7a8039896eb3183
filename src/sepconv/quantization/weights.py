"""Int8 weights of a convolution or dense layer: kernel, bias and scale, a scale an output channel.

Kernels are symmetric, -127 to 127. The scale of a channel is the one whose rounding errors matter
the least, weighted by how large the inputs that they multiply are; some large weights may be
clamped for it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sepconv.quantization.moments import Moments, adapt

__all__ = ["Kernel", "Weights", "fit", "kernel_of"]

#: Parts of a channel's largest weight that its greatest number stands for, in turns.
_PARTS = np.linspace(0.7, 1.0, 16)

#: The most that a bias may be, so that sums of 2**15 products beside it stay within int32.
_MOST_BIAS = 2.0**29

#: The least scale, so that products of it are normal numbers.
_LEAST_SCALE = 1e-15


class Kernel(NamedTuple):
    """A kernel as a matrix of its taps by its outputs.

    Attributes:
        matrix: [taps, outputs]; of a depthwise kernel, taps of one channel each.
        shape: of the kernel itself.
        depthwise: whether it is a depthwise one.
    """

    matrix: np.ndarray
    shape: tuple[int, ...]
    depthwise: bool

    def taps(self, channels: np.ndarray) -> np.ndarray:
        """Numbers of input channels, as they meet the matrix: [taps, outputs] or [taps, 1]."""
        if self.depthwise:
            return np.repeat(channels, self.shape[3])[None, :]
        return np.tile(channels, len(self.matrix) // len(channels))[:, None]

    def whole(self, matrix: np.ndarray) -> np.ndarray:
        """A matrix like its own in the shape of the kernel."""
        return np.ascontiguousarray(matrix.reshape(self.shape))


def kernel_of(array: np.ndarray, depthwise: bool) -> Kernel:
    """The matrix of a kernel.

    Example:
        >>> kernel_of(np.ones((3, 3, 4, 2)), depthwise=True).matrix.shape
        (9, 8)
        >>> kernel_of(np.ones((3, 3, 4, 2)), depthwise=False).matrix.shape
        (36, 2)
    """
    outputs = array.shape[-1] * (array.shape[-2] if depthwise else 1)
    return Kernel(np.asarray(array, np.float64).reshape(-1, outputs), array.shape, depthwise)


class Weights(NamedTuple):
    """What an int8 layer holds.

    Attributes:
        kernel: int8, in its shape.
        bias: int32, a number an output.
        scale: of the kernel's numbers, in float64, a number an output.
        fits: whether sums stay within int32 for any input.
    """

    kernel: np.ndarray
    bias: np.ndarray
    scale: np.ndarray
    fits: bool


def fit(
    kernel: Kernel,
    bias: np.ndarray | None,
    input_scale: float,
    mean: np.ndarray | None = None,
    square: np.ndarray | None = None,
    *,
    correct: bool = False,
    moments: Moments | None = None,
) -> Weights:
    """Rounds a kernel and its bias.

    Args:
        kernel: of float.
        bias: of float, or None.
        input_scale: of the layer's input.
        mean: of the input's channels, which `correct` needs.
        square: the mean squares of the input's channels; None counts all alike.
        correct: whether the bias makes up for the mean error of rounding the kernel.
        moments: None, to round each weight to the nearest; or of the layer's rows, to round them
            so that the sums' error is small, and to correct the bias by.

    Example:
        >>> made = fit(kernel_of(np.array([[0.5, -2.0], [1.0, 1.0]]), False), None, 0.1)
        >>> made.kernel.tolist()
        [[64, -127], [127, 64]]
    """
    matrix = kernel.matrix
    if not (np.isfinite(matrix).all() and (bias is None or np.isfinite(bias).all())):
        nothing = np.zeros(matrix.shape[1])
        empty = np.zeros(kernel.shape, np.int8), nothing.astype(np.int32), nothing
        return Weights(*empty, fits=False)
    weight = np.ones((1, 1)) if square is None else kernel.taps(square) + 1e-12 * square.max()
    largest = np.maximum(np.abs(matrix).max(0, initial=0.0), _LEAST_SCALE)
    offset = np.zeros(matrix.shape[1]) if bias is None else np.asarray(bias, np.float64)
    # A bias that is far above all products leaves them a coarser scale.
    least = np.maximum(np.abs(offset) / (_MOST_BIAS * input_scale), _LEAST_SCALE)
    scale, errors = np.maximum(largest / 127, least), np.full(matrix.shape[1], np.inf)
    for part in _PARTS:
        tried = np.maximum(largest * part / 127, least)
        rounded = np.clip(np.rint(matrix / tried), -127, 127) * tried
        error = ((rounded - matrix) ** 2 * weight).sum(0)
        scale, errors = np.where(error <= errors, tried, scale), np.minimum(error, errors)
    if moments is None:
        numbers = np.clip(np.rint(matrix / scale), -127, 127)
        means = None if mean is None else kernel.taps(mean)
    else:
        numbers = adapt(matrix, scale, moments.covariance, input_scale**2 / 12)
        means = moments.mean[:, None]
        if kernel.depthwise:
            means = np.repeat(moments.mean.T, kernel.shape[3], 1)
    if correct and means is not None:
        offset = offset + ((matrix - numbers * scale) * means).sum(0)
    whole = np.rint(offset / (scale * input_scale))
    reach = np.abs(whole) + 255 * np.abs(numbers).sum(0)
    return Weights(
        kernel.whole(numbers.astype(np.int8)),
        np.clip(whole, -(2.0**31), 2.0**31 - 1).astype(np.int32),
        scale,
        bool((reach < 2.0**31).all()),
    )
