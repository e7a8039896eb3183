"""The inputs of a case, and the results that a peer must give before it is timed.

The results are float64. Those of the depthwise step come from sepconv's float64 kernels, since the
reference would need minutes for the largest cases. In the first and the last channel they are
compared with `sepconv.reference` on the same arrays, which suffices, since channels do not mix. The
1x1 step, where channels mix, is NumPy's matrix product.

Inputs are numbers that the case's dtype has, so nobody is charged with their rounding. They are
kept as float32 arrays, which hold them exactly and which files know; `typed` makes the arrays that
a library gets. Results are those of exact arithmetic: what a library rounds in between is its own
error.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from sepconv import depthwise_conv2d, depthwise_conv2d_grad, reference
from sepconv.arrays import empty
from sepconv.bench.workloads import Case

__all__ = [
    "TOLERANCES",
    "Arrays",
    "inputs_of",
    "load",
    "make",
    "numpy_dtype",
    "relative_error",
    "save",
    "typed",
]

#: The largest relative error, in the norm, of right outputs. Of the half types it is four times
#: what rounding a number costs: libraries may round between the two steps, before the bias and in a
#: gradient.
TOLERANCES = {
    "float32": 1e-4,
    "float64": 1e-12,
    "bfloat16": 4 * 2.0**-8,
    "float16": 4 * 2.0**-11,
    # Of Gaussian numbers 256 steps leave an error of 0.01, and of 0.02 through two layers.
    "int8": 2.0**-4,
}

#: Arrays by name. Inputs, those that a case has: x, depthwise_kernel (kh, kw, C, M),
#: pointwise_kernel (C * M, F), bias, dy. For "pointwise", x is the output of the depthwise step.
#: Outputs: y, dx, ddepthwise_kernel, dpointwise_kernel, dbias.
Arrays = dict[str, np.ndarray]

#: dy is 0 where y before its activation is this near to a kink of relu6, since rounding would
#: decide between two gradients there.
_KINKS = {"float32": 1e-3, "float64": 1e-3, "bfloat16": 16 * 2.0**-8, "float16": 16 * 2.0**-11}


def relative_error(received: np.ndarray, expected: np.ndarray) -> float:
    """The norm of the difference, divided by the norm of the expected array."""
    scale = float(np.linalg.norm(expected)) or 1.0
    return float(np.linalg.norm(received.astype(np.float64) - expected)) / scale


def numpy_dtype(name: str) -> np.dtype:
    """NumPy's dtype of a case's arrays; bfloat16 is that of ml_dtypes, and int8 has float32's."""
    if name == "int8":
        return np.dtype(np.float32)
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def typed(case: Case, inputs: Arrays) -> Arrays:
    """The inputs as arrays of the case's dtype, aligned to cache lines."""
    dtype = numpy_dtype(case.dtype)
    found = {name: empty(array.shape, dtype) for name, array in inputs.items()}
    for name, array in inputs.items():
        found[name][...] = array.astype(dtype)
    return found


def _checked(what: str, ours: np.ndarray, trusted: np.ndarray) -> None:
    error = relative_error(ours, trusted)
    if not error < 1e-10:
        raise AssertionError(f"{what} of sepconv in float64 is off by {error:.1e}, relative.")


def _ends(array: np.ndarray, axis: int, width: int) -> np.ndarray:
    """The first and the last `width` entries of an axis."""
    count = array.shape[axis]
    places = [*range(width), *range(count - width, count)] if count > width else range(width)
    return array.take(places, axis)


class _Depthwise:
    """The depthwise step of a case in float64, checked against the reference."""

    def __init__(self, case: Case, x: np.ndarray, kernel: np.ndarray) -> None:
        w = case.workload
        self.x, self.kernel = x.astype(np.float64), kernel.astype(np.float64)
        self.options: dict[str, Any] = {
            "strides": w.strides,
            "padding": w.padding,
            "dilation_rate": w.dilation,
        }
        self.m = w.depth_multiplier
        self.few = _ends(self.x, 3, 1), _ends(self.kernel, 2, 1)

    def forward(self) -> np.ndarray:
        y = depthwise_conv2d(self.x, self.kernel, **self.options)
        few = reference.depthwise_conv2d(*self.few, **self.options)
        _checked("y", _ends(y, 3, self.m), few)
        return y

    def backward(self, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        grads = depthwise_conv2d_grad(self.x, self.kernel, dy, **self.options)
        few = reference.depthwise_conv2d_grad(*self.few, _ends(dy, 3, self.m), **self.options)
        _checked("dx", _ends(grads.x, 3, 1), few.x)
        _checked("ddepthwise_kernel", _ends(grads.depthwise_kernel, 2, 1), few.depthwise_kernel)
        return grads.x, grads.depthwise_kernel


def make(case: Case) -> tuple[Arrays, Arrays]:
    """The inputs of a case, always the same, and its results (float64)."""
    inputs = inputs_of(case)
    return inputs, _answers(case, inputs)


def inputs_of(case: Case) -> Arrays:
    """The inputs of a case, always the same: float32 arrays of numbers that its dtype has."""
    w = case.workload
    dtype = numpy_dtype(case.dtype)
    rng = np.random.default_rng(zlib.crc32(f"{w.name} {case.batch} {case.mode}".encode()))

    def normal(scale: float, *shape: int) -> np.ndarray:
        drawn = (scale * rng.standard_normal(shape, np.float32)).astype(np.float32)
        return drawn.astype(dtype).astype(np.float32)

    inputs: Arrays = {}
    if case.operation == "pointwise":
        inputs["x"] = normal(1, case.batch, *w.output_size, w.middle)
    else:
        inputs["x"] = normal(1, *w.x_shape(case.batch))
        taps = w.kernel[0] * w.kernel[1]
        inputs["depthwise_kernel"] = normal(taps**-0.5, *w.kernel_shape)
    channels = case.output_channels
    if case.operation != "depthwise":
        inputs["pointwise_kernel"] = normal(w.middle**-0.5, w.middle, channels)
    if case.epilogue:
        inputs["bias"] = normal(1, channels)
    if case.training:
        inputs["dy"] = normal(1, case.batch, *w.output_size, channels)
    return inputs


def _answers(case: Case, inputs: Arrays) -> Arrays:
    depthwise = None
    if case.operation == "pointwise":
        middle = inputs["x"].astype(np.float64)
    else:
        depthwise = _Depthwise(case, inputs["x"], inputs["depthwise_kernel"])
        middle = depthwise.forward()
    y, weights = middle, None
    if case.operation != "depthwise":
        weights = inputs["pointwise_kernel"].astype(np.float64)
        y = middle @ weights
    if case.epilogue:
        y = y + inputs["bias"]
    answers = {"y": np.clip(y, 0, 6) if case.epilogue else y}
    if not case.training:
        return answers
    if case.epilogue:
        inputs["dy"][np.minimum(np.abs(y), np.abs(y - 6)) < _KINKS[case.dtype]] = 0
    dy = inputs["dy"].astype(np.float64)
    if case.epilogue:
        dy *= (y > 0) & (y < 6)
        answers["dbias"] = dy.sum((0, 1, 2))
    if weights is not None:
        flat = dy.reshape(-1, dy.shape[3])
        answers["dpointwise_kernel"] = middle.reshape(-1, middle.shape[3]).T @ flat
        dy = (flat @ weights.T).reshape(middle.shape)
    answers["dx"] = dy
    if depthwise is not None:
        answers["dx"], answers["ddepthwise_kernel"] = depthwise.backward(dy)
    return answers


def save(folder: Path, arrays: Arrays) -> None:
    """Writes arrays for other processes to read."""
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def load(folder: Path) -> Arrays:
    """Reads arrays that `save` wrote, into memory aligned to cache lines, to favour no peer."""
    arrays: Arrays = {}
    for path in sorted(folder.glob("*.npy")):
        stored = np.load(path)
        arrays[path.stem] = empty(stored.shape, stored.dtype)
        arrays[path.stem][...] = stored
    return arrays
