"""Numbers for weights with which outputs are of order one, and every layer matters."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops


def fill(model, random):
    """Gives every variable of floats a value; states of generators and counts stay."""
    for variable in model.weights:
        if not keras.backend.is_float_dtype(variable.dtype) or "seed_generator" in variable.path:
            continue
        variable.assign(ops.cast(_values(variable, random), variable.dtype))


def _values(variable, random):
    shape, name = tuple(variable.shape), variable.path.rsplit("/", 1)[-1]
    normal = random.standard_normal(shape)
    if "normalization" in variable.path and name in ("mean", "variance", "count"):
        return np.asarray(ops.convert_to_numpy(ops.cast(variable, "float32")))  # adapted
    if "variance" in name:
        return 0.6 + np.abs(normal)
    if name in ("gamma", "scale", "factor"):
        return 1 + 0.25 * normal
    if name == "alpha":
        return 0.2 + 0.1 * np.abs(normal)
    if name == "calls":
        return np.full(shape, 3.0)
    if "embeddings" in name:
        return normal
    if len(shape) < 2 or "bias" in name:
        return 0.3 * normal
    return normal * np.sqrt(1.6 / _inputs(name, shape))


def _inputs(name, shape):
    """How many numbers a kernel adds up."""
    if "depthwise" in name or (len(shape) >= 3 and shape[-1] <= 2):
        return np.prod(shape[:-2])
    return max(1, np.prod(shape[:-1]))


def make_low_rank(layer, rank):
    """Gives a convolution a kernel of this rank, for `factorize` to find."""
    kernel = ops.convert_to_numpy(ops.cast(layer.kernel, "float32")).astype("float64")
    layer.kernel.assign(ops.cast(cut_off(kernel, rank), layer.kernel.dtype))


def cut_off(kernel, rank):
    """A kernel [height, width, channels, filters], each channel's matrix at this rank."""
    height, width, channels, filters = kernel.shape
    matrices = kernel.transpose(2, 0, 1, 3).reshape(channels, height * width, filters)
    u, s, v = np.linalg.svd(matrices, full_matrices=False)
    nearest = (u[..., :rank] * s[:, None, :rank]) @ v[:, :rank]
    return nearest.reshape(channels, height, width, filters).transpose(1, 2, 0, 3)
