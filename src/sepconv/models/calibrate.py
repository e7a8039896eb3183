"""Batches of data for a model, and the moments of its layers' inputs on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from sepconv.models.inputs import generate
from sepconv.models.lowrank import Moments
from sepconv.models.watching import watched

__all__ = ["batches", "check_data", "gather_moments", "single_inputs"]

#: Numbers in a batch, about.
_BATCH_NUMBERS = 2_000_000
_MOST_IN_A_BATCH = 256


def check_data(data: Any) -> Any:
    """`data` as a structure of NumPy arrays of one length.

    Raises:
        ValueError: an array is empty, or lengths differ.
    """
    data = keras.tree.map_structure(np.asarray, data)
    shapes = [array.shape for array in keras.tree.flatten(data)]
    if not shapes or len({shape[:1] for shape in shapes}) != 1 or not all(shapes[0][:1]):
        raise ValueError(
            "data must be an array of inputs, or several of one length, that is not empty. "
            f"Received: shapes {shapes}"
        )
    if () in shapes:
        raise ValueError("data must have an axis of inputs. Received: a single number")
    return data


class _Batches(Sequence[Any]):
    def __init__(self, data: Any) -> None:
        self._data = data
        arrays = keras.tree.flatten(data)
        self._length = len(arrays[0])
        numbers = max(1, max(array.size for array in arrays) // self._length)
        self._size = int(np.clip(_BATCH_NUMBERS // numbers, 1, _MOST_IN_A_BATCH))

    def __len__(self) -> int:
        return -(-self._length // self._size)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = slice(index * self._size, (index + 1) * self._size)
        return keras.tree.map_structure(lambda x: x[part], self._data)


def batches(data: Any) -> Sequence[Any]:
    """A structure of arrays, as `check_data` gives it, in parts of moderate size."""
    return _Batches(data)


def single_inputs(model: Any, data: Any = None) -> Iterator[Any]:
    """Inputs of one example each, from the data or made for the model.

    Where the model leaves sizes open, it need not take every one of these inputs. Where it fixes
    the batch size, inputs of that size come after those of one example.

    Raises:
        InputsError: inputs cannot be made. It is a ValueError.
    """
    for inputs in generate(model) if data is None else [batches(data)[0]]:
        yield keras.tree.map_structure(lambda x: x[:1], inputs)
        if any(len(array) > 1 for array in keras.tree.flatten(inputs)):
            yield inputs


def gather_moments(model: Any, data: Iterable[Any], moments: dict[int, Moments]) -> None:
    """Runs the model on batches and adds its layers' inputs to their moments, by layer id.

    Raises:
        ValueError: an input of a layer is not finite.
    """
    layers = [layer for layer in model._flatten_layers() if id(layer) in moments]

    def add(layer: Any, given: tuple[Any, ...], output: Any) -> None:
        inputs = given[0]
        if keras.backend.standardize_dtype(inputs.dtype) == "bfloat16":  # unknown to NumPy
            inputs = ops.cast(inputs, "float32")
        moments[id(layer)].add(ops.convert_to_numpy(inputs))

    with watched(layers, add):
        for batch in data:
            model(batch, training=False)
