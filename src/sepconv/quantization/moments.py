"""What a layer's weights multiply, on calibration data: means, and how they vary together.

A row is all that one output of a layer is the sum of: a window of the image, or a vector. Of the
rows there are enough to say which errors of weights cancel out: see `adapt`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sepconv.geometry import ConvSpec
from sepconv.program.network import Network, Step
from sepconv.program.quantized_reference import Windows, as_image
from sepconv.quantization.observe import Runner, batches_of, examples_used, spread

__all__ = ["Moments", "adapt", "moments"]

#: The most numbers in a row: what is longer is rounded weight by weight.
_MOST_TAPS = 4096

#: The most rows of an example that count, evenly apart: neighbours are much alike.
_MOST_ROWS = 128

#: What is added to every tap's variance, as a part of their mean: few examples vary too little.
_DAMPING = 0.01

#: Weights that are rounded before those after them are changed.
_BLOCK = 64


class Moments(NamedTuple):
    """Of the rows of a layer.

    Attributes:
        mean: [taps], or [channels, taps] of a depthwise layer.
        covariance: [taps, taps], or [channels, taps, taps], of numbers less their mean.
    """

    mean: np.ndarray
    covariance: np.ndarray


class _Sums:
    """Adds up the rows of one layer."""

    def __init__(self, network: Network, step: Step) -> None:
        self._step, self._count = step, 0
        self._depthwise = "depthwise_kernel" in step.weights
        part = "kernel" if step.operation == "dense" else "pointwise_kernel"
        part = "depthwise_kernel" if self._depthwise else part
        self._shape = network.tensors[step.weights[part]].shape
        taps = int(np.prod(self._shape[:2] if self._depthwise else self._shape[:-1]))
        #: Whether rows are short enough to be counted.
        self.fits = taps <= _MOST_TAPS
        before = (self._shape[2],) if self._depthwise else ()
        size = taps if self.fits else 0
        self._sum = np.zeros((*before, size))
        self._products = np.zeros((*before, size, size))

    def add(self, x: np.ndarray) -> None:
        rows = self._rows(x)
        if self._depthwise:
            rows = rows.transpose(2, 0, 1)  # channels first
        self._count += rows.shape[-2]
        wide = rows.astype(np.float32)
        self._sum += wide.sum(-2, dtype=np.float64)
        self._products += np.swapaxes(wide, -1, -2) @ wide

    def _rows(self, x: np.ndarray) -> np.ndarray:
        """Rows, [count, taps]; of a depthwise layer [count, taps, channels]."""
        if self._step.operation == "dense":
            return spread(x.reshape(-1, x.shape[-1]), _MOST_ROWS * len(x))
        spec = ConvSpec(*self._step.attributes["spec"])
        image = as_image(x, spec)
        parts = [
            spread(pixels.reshape(-1, image.shape[-1]), _MOST_ROWS * len(x))
            for _, _, pixels in Windows(image, spec, self._shape[:2])
        ]
        found = np.stack(parts, 1)
        return found if self._depthwise else found.reshape(len(found), -1)

    def moments(self) -> Moments:
        """What was added up."""
        mean = self._sum / max(self._count, 1)
        covariance = self._products / max(self._count, 1)
        return Moments(mean, covariance - mean[..., :, None] * mean[..., None, :])


def moments(
    network: Network, arrays: Sequence[np.ndarray], most: int = 128
) -> Mapping[int, Moments]:
    """The moments of all layers with kernels, by the numbers of their steps.

    Args:
        network: of float32, whose convolutions have one kernel each.
        arrays: its inputs, of one length.
        most: examples that are used.

    Example:
        >>> from sepconv.program.network import Input
        >>> step = Step("dense", "d", [0], {"activation": "none"}, {"kernel": 0})
        >>> tensors = [np.ones((2, 1), "float32")]
        >>> network = Network("float32", [Input("x", (None, 2))], [step], [1], ["y"], tensors)
        >>> found = moments(network, [np.float32([[1, 0], [3, 0]])])
        >>> found[0].mean.tolist(), found[0].covariance.tolist()
        ([2.0, 0.0], [[1.0, 0.0], [0.0, 0.0]])
    """
    sums = {
        i: made
        for i, step in enumerate(network.steps)
        if step.operation in ("convolution", "dense")
        if (made := _Sums(network, step)).fits
    }
    by_value: dict[int, list[int]] = {}
    for i in sums:
        by_value.setdefault(network.steps[i].inputs[0], []).append(i)
    if not sums:
        return {}
    run = Runner(network, sorted(by_value))
    used = examples_used(network, len(arrays[0]), most)
    for batch in batches_of(network, [array[:used] for array in arrays]):
        for value, x in run(batch):
            if np.isfinite(x).all():
                for i in by_value[value]:
                    sums[i].add(x)
    return {i: made.moments() for i, made in sums.items()}


def adapt(
    matrix: np.ndarray, scale: np.ndarray, covariance: np.ndarray, noise: float
) -> np.ndarray:
    """Rounds weights one after another, each so that it makes up for the errors of those before.

    What is small is not the error of the weights but that of the sums: where inputs vary together,
    a weight rounded up is made up for by one rounded down. (Hassibi and Stork, "Second Order
    Derivatives for Network Pruning: Optimal Brain Surgeon", 1993; Frantar et al., "GPTQ", 2023,
    https://arxiv.org/abs/2210.17323.)

    Args:
        matrix: of the kernel, [taps, outputs].
        scale: of each output's numbers.
        covariance: of the taps, [taps, taps]; of a depthwise kernel [channels, taps, taps].
        noise: the mean square of what rounding adds to each input.

    Returns:
        Whole numbers of -127 to 127, in float64.

    Example:
        >>> both = np.ones((2, 2))  # two inputs that are always alike
        >>> int(adapt(np.array([[0.4], [0.4]]), np.ones(1), both, 0.0).sum())
        1
    """
    taps = covariance.shape[-1]
    variances = np.diagonal(covariance, axis1=-2, axis2=-1)
    order = np.argsort(-variances.reshape(-1, taps).mean(0))
    damping = np.maximum(_DAMPING * variances.mean(-1), 1e-12) + noise
    sorted_ = covariance[..., order, :][..., order]
    factor = _factor(sorted_, damping)
    numbers = np.empty_like(matrix)
    left = matrix[order].copy()
    if covariance.ndim == 3:
        each = matrix.shape[1] // len(covariance)
        factor = np.repeat(factor, each, 0)
        for i in range(taps):
            numbers[order[i]] = q = np.clip(np.rint(left[i] / scale), -127, 127)
            error = (left[i] - q * scale) / factor[:, i, i]
            left[i:] -= factor[:, i, i:].T * error
        return numbers
    for begin in range(0, taps, _BLOCK):
        end = min(begin + _BLOCK, taps)
        errors = np.empty((end - begin, matrix.shape[1]))
        for i in range(begin, end):
            numbers[order[i]] = q = np.clip(np.rint(left[i] / scale), -127, 127)
            errors[i - begin] = (left[i] - q * scale) / factor[i, i]
            left[i:end] -= factor[i, i:end, None] * errors[i - begin]
        left[end:] -= factor[begin:end, end:].T @ errors
    return numbers


def _factor(covariance: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """The upper factor of the inverse: its rows say what the weights after one make up for.

    Inputs that hardly vary have a covariance of nothing but roundings, which may be below zero by
    more than the damping: then that grows until it is the larger.
    """
    while True:
        damped = covariance + damping[..., None, None] * np.eye(covariance.shape[-1])
        try:
            return np.swapaxes(np.linalg.cholesky(np.linalg.inv(damped)), -1, -2)
        except np.linalg.LinAlgError:
            damping = 10 * damping
