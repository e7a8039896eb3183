"""The difference of two predictions, and the difference that is allowed, for Keras' models."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import tree

from sepconv.program.comparing import (
    allowed,
    difference,
    differences,
    moved_array,
    plainly_apart,
    roundings,
    usual,
    within,
)

__all__ = [
    "allowed",
    "difference",
    "differences",
    "moved",
    "plainly_apart",
    "precision",
    "precision_of",
    "roundings",
    "usual",
    "within",
]


def precision(model: Any) -> float:
    """The relative precision of the coarsest floating dtype that a model computes in.

    Example:
        >>> float(precision(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])))
        1.1920928955078125e-07
    """
    found = {"float32"} if not isinstance(model, keras.layers.Layer) else set()
    for layer in model._flatten_layers():
        if keras.backend.is_float_dtype(layer.compute_dtype):
            found.add(layer.compute_dtype)
    return max(map(precision_of, found), default=2.0**-23)


def precision_of(dtype: str) -> float:
    """The relative precision of a floating dtype, at most that of float32.

    Example:
        >>> precision_of("bfloat16")
        0.0078125
    """
    return _EPSILON.get(dtype, _EPSILON["float32"])


_EPSILON = {
    "bfloat16": 2.0**-7,
    "float16": 2.0**-10,
    "float32": 2.0**-23,
    "float64": 2.0**-23,  # inputs are of float32 as a rule
}


def moved(inputs: Any, epsilon: float, seed: int = 0) -> Any:
    """Inputs whose floats are one unit in the last place away, up or down.

    Args:
        inputs: a structure of arrays.
        epsilon: the relative size of such a unit, of numbers from 1 to 2.
        seed: the same seed moves the same way.

    Example:
        >>> moved(np.array([1.0, -6.0], "float32"), 2.0**-10).tolist() != [1.0, -6.0]
        True
    """
    rng = np.random.default_rng(seed)

    def move(array: Any) -> Any:
        return moved_array(array, epsilon, rng) if isinstance(array, np.ndarray) else array

    return tree.map_structure(move, inputs)
