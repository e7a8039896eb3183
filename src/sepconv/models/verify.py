"""How far the predictions of two models lie apart, on random inputs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from sepconv.models.files import first_line

__all__ = ["difference", "predict", "random_inputs", "refusal"]

#: What an axis of unknown size gets.
_SIZE = 64


def random_inputs(
    model: Any, batch: int = 2, size: tuple[int, ...] | None = None, seed: int = 0
) -> Any:
    """Inputs for a model: standard normal numbers, or zeros and ones where it takes integers.

    Args:
        model: a Keras model whose input shapes are known, but for the batch and sizes.
        batch: the number of examples, where the model does not fix it.
        size: the sizes of unknown axes, in order, the last of them for all that follow; None is 64.
        seed: the same seed gives the same inputs.

    Returns:
        An array, or the model's structure of arrays.

    Raises:
        ValueError: the model does not know the shape of its inputs.

    Example:
        >>> model = keras.Sequential([keras.Input((None, 8, 3)), keras.layers.Conv2D(2, 3)])
        >>> random_inputs(model, size=(10,)).shape
        (2, 10, 8, 3)
    """
    rng = np.random.default_rng(seed)

    def draw(shape: tuple[int | None, ...], dtype: str) -> np.ndarray:
        sizes = _sizes(shape, batch, size)
        if keras.backend.is_float_dtype(dtype):
            return rng.standard_normal(sizes).astype("float32")
        return rng.integers(0, 2, sizes).astype(dtype)

    tensors = getattr(model, "inputs", None)
    if tensors:
        # A Sequential model of its own has a list of its one input, and no structure.
        inputs = tensors[0] if isinstance(model, keras.Sequential) else model.input
        return keras.tree.map_structure(lambda tensor: draw(tensor.shape, tensor.dtype), inputs)
    # A subclassed model has no inputs, but remembers what it was built with.
    shape = (model.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, (tuple, list)) or not all(isinstance(n, int | None) for n in shape):
        raise ValueError(f"model {model.name!r} does not know the shape of its inputs")
    return draw(tuple(shape), "float32")


def _sizes(
    shape: tuple[int | None, ...], batch: int, size: tuple[int, ...] | None
) -> tuple[int, ...]:
    """A shape where every unknown size is known."""
    first, *rest = shape
    stand_ins = list(size or (_SIZE,))
    sizes = []
    for axis in rest:
        if axis is None:
            axis = stand_ins.pop(0) if len(stand_ins) > 1 else stand_ins[0]
        sizes.append(axis)
    return (batch if first is None else first, *sizes)


def predict(model: Any, inputs: Any) -> list[np.ndarray]:
    """The model's outputs for one batch, flat, in float64.

    Raises:
        ValueError: the model does not compute with such inputs.
    """
    try:
        outputs = keras.tree.flatten(model.predict_on_batch(inputs))
    # Every engine has exceptions of its own for shapes that do not fit.
    except Exception as error:
        raise ValueError(refusal(inputs, error)) from error
    return [np.asarray(output, "float64") for output in outputs]


def refusal(inputs: Any, error: Exception) -> str:
    """Says that a model failed on inputs, with their shapes."""
    shapes = ", ".join(str(tuple(x.shape)) for x in keras.tree.flatten(inputs))
    return f"does not predict on inputs of the shape {shapes}: {first_line(error)}"


def difference(expected: list[np.ndarray], found: list[np.ndarray]) -> float:
    """The largest difference between outputs, relative to the largest of each expected one.

    Returns:
        The largest over the outputs; infinite where shapes differ or a number is not finite.

    Example:
        >>> difference([np.array([1.0, 4.0])], [np.array([1.5, 4.0])])
        0.125
    """
    if [a.shape for a in expected] != [b.shape for b in found]:
        return float("inf")
    worst = 0.0
    for a, b in zip(expected, found, strict=True):
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return float("inf")
        apart = float(np.abs(a - b).max(initial=0.0))
        largest = float(np.abs(a).max(initial=0.0))
        if apart:
            worst = max(worst, apart / largest if largest else float("inf"))
    return worst
