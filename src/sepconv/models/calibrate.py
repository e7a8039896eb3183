"""Runs a model to see what passes through its layers: how many pixels, and what patches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from sepconv.models.lowrank import Moments

__all__ = ["Costs", "batches", "check_data", "gather_moments", "measure_costs", "stand_in"]

#: The sizes of an input that a model leaves open.
_OPEN_SIZE = 64
#: A batch has about so many numbers.
_BATCH_NUMBERS = 2_000_000
_MOST_IN_A_BATCH = 256

#: Layers that take as many multiply-adds an output pixel as they have weights in kernels.
_COUNTED = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
    keras.layers.Dense,
)
#: Those that take as many an input pixel.
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)


class Costs(NamedTuple):
    """The multiply-adds of a model's convolutions and dense layers, for one picture.

    Attributes:
        pixels: by a layer's id, how many pixels it computes over all its calls.
        total: the multiply-adds of all of them.
    """

    pixels: dict[int, int]
    total: int

    def of(self, layer: Any) -> int:
        """The multiply-adds of one layer."""
        return self.pixels.get(id(layer), 0) * _weights(layer)


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


def stand_in(model: Any) -> Any:
    """One input of zeros for a model; sizes that it leaves open are 64."""

    def zeros(tensor: Any) -> np.ndarray:
        sizes = [size or _OPEN_SIZE for size in tensor.shape[1:]]
        return np.zeros((1, *sizes), keras.backend.standardize_dtype(tensor.dtype))

    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(zeros, inputs)


def measure_costs(model: Any, batch: Any) -> Costs:
    """Runs the model on a batch and counts what its layers do for one picture of it."""
    pictures = len(keras.tree.flatten(batch)[0])
    pixels: dict[int, int] = {}
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, _COUNTED)]
    transposed = [layer for layer in model._flatten_layers() if isinstance(layer, _TRANSPOSED)]

    def count(layer: Any, inputs: Any, outputs: Any) -> None:
        tensor = inputs if layer in transposed else outputs
        first = getattr(layer, "data_format", None) == "channels_first"
        numbers = int(np.prod(tensor.shape)) // tensor.shape[1 if first else -1]
        pixels[id(layer)] = pixels.get(id(layer), 0) + numbers // pictures

    with _watched([*layers, *transposed], count):
        model(batch, training=False)
    counted = {id(layer): layer for layer in [*layers, *transposed]}
    total = sum(_weights(counted[key]) * number for key, number in pixels.items())
    return Costs(pixels, total)


def gather_moments(model: Any, data: Iterable[Any], moments: dict[int, Moments]) -> None:
    """Runs the model on batches and adds what layers get as input to their moments, by their id.

    Raises:
        ValueError: an input of a layer is not finite.
    """
    layers = [layer for layer in model._flatten_layers() if id(layer) in moments]

    def add(layer: Any, inputs: Any, outputs: Any) -> None:
        if keras.backend.standardize_dtype(inputs.dtype) == "bfloat16":  # unknown to NumPy
            inputs = ops.cast(inputs, "float32")
        moments[id(layer)].add(ops.convert_to_numpy(inputs))

    with _watched(layers, add):
        for batch in data:
            model(batch, training=False)


def _weights(layer: Any) -> int:
    """The number of weights in a layer's kernels: all but its bias."""
    return layer.count_params() - (layer.bias.shape[0] if layer.use_bias else 0)


@contextmanager
def _watched(layers: Iterable[Any], seen: Callable[[Any, Any, Any], None]) -> Iterator[None]:
    """Within it, `seen(layer, inputs, outputs)` is told of each call of the layers."""

    def watch(layer: Any, call: Callable[..., Any]) -> None:
        @functools.wraps(call)
        def watched(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            outputs = call(inputs, *args, **kwargs)
            seen(layer, inputs, outputs)
            return outputs

        layer.call = watched

    # Wherever a layer is, in nested models or wrappers, its `call` is what computes it.
    before = [(layer, vars(layer).get("call")) for layer in layers]
    try:
        for layer, _ in before:
            watch(layer, layer.call)
        yield
    finally:
        for layer, own in before:
            if own is not None:
                layer.call = own
            elif "call" in vars(layer):
                del layer.call
