"""Calibration data as the arrays that a network takes, of whatever was given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sepconv.program.network import Input

__all__ = ["MOST_EXAMPLES", "arrays_of"]

#: The most examples that are used: the ranges of values hardly change after hundreds.
MOST_EXAMPLES = 4096

#: The parts of a batch as `fit` takes it: inputs, targets, weights.
_MOST_PARTS = 3


def arrays_of(calibration: Any, inputs: Sequence[Input]) -> list[np.ndarray]:
    """An array of float32 for each input of a network, all of one length.

    Args:
        calibration: an array; of several inputs, a list or tuple of arrays in their order or a
            mapping by their names; or batches of these, as what `fit` iterates over: in a tuple, a
            batch's inputs come first, and targets after them are left out. The first
            `MOST_EXAMPLES` examples are used.
        inputs: of the network.

    Raises:
        TypeError: it is none of these.
        ValueError: there are no examples, or their shapes are not what the network takes.

    Example:
        >>> entries = [Input("x", (None, 2))]
        >>> arrays_of([([[1, 2]], ["a target"]), ([[3, 4]], ["another"])], entries)[0].tolist()
        [[1.0, 2.0], [3.0, 4.0]]
    """
    whole = _structure(calibration, inputs)
    if whole is not None:
        arrays = [array[:MOST_EXAMPLES] for array in whole]
    else:
        arrays = _gathered(calibration, inputs)
    for entry, array in zip(inputs, arrays, strict=True):
        _check(entry, array)
    count = len(arrays[0])
    if not count or any(len(array) != count for array in arrays):
        raise ValueError(
            "calibration must have examples, as many for every input. Received: "
            f"{[len(array) for array in arrays]} of the inputs {[entry.name for entry in inputs]}"
        )
    batch = inputs[0].shape[0]
    if batch is not None:
        if count < batch:
            raise ValueError(
                f"calibration must have at least {batch} examples, the batch that the model fixes. "
                f"Received: {count}"
            )
        arrays = [array[: count // batch * batch] for array in arrays]
    return arrays


def _structure(given: Any, inputs: Sequence[Input]) -> list[np.ndarray] | None:
    """The arrays of a structure of them; None where it is something else, such as batches."""
    if isinstance(given, Mapping):
        names = [entry.name for entry in inputs]
        if set(given) != set(names):
            raise ValueError(
                f"calibration must have an array for each of the inputs {names}. Received: "
                f"{sorted(map(str, given))}"
            )
        return [_array(given[name]) for name in names]
    if _is_array(given):
        return [_array(given)] if len(inputs) == 1 else None
    several = isinstance(given, list | tuple) and len(inputs) > 1 and len(given) == len(inputs)
    if several and all(_is_array(each) for each in given):
        return [_array(each) for each in given]
    return None


def _gathered(batches: Any, inputs: Sequence[Input]) -> list[np.ndarray]:
    """The first examples of batches, together."""
    parts: list[list[np.ndarray]] = []
    count = 0
    for batch in _iterated(batches):
        found = _of_batch(batch, inputs)
        parts.append(found)
        count += len(found[0]) if found[0].ndim else 1
        if count >= MOST_EXAMPLES:
            break
    if not parts:
        raise ValueError("calibration must have examples. Received: no batch")
    for entry, arrays in zip(inputs, zip(*parts, strict=True), strict=True):
        for array in arrays:
            _check(entry, array)
    return [np.concatenate(each)[:MOST_EXAMPLES] for each in zip(*parts, strict=True)]


def _of_batch(batch: Any, inputs: Sequence[Input]) -> list[np.ndarray]:
    found = _structure(batch, inputs)
    if found is None and isinstance(batch, tuple) and 0 < len(batch) <= _MOST_PARTS:
        found = _structure(batch[0], inputs)
        first = batch[0]
        if found is None and isinstance(first, list | tuple) and len(inputs) == 1:
            found = [_array(first)]
    if found is None and isinstance(batch, list) and len(inputs) == 1:
        found = [_array(batch)] if not any(map(_is_array, batch)) else _structure(batch[0], inputs)
    if found is None:
        raise TypeError(
            f"A batch of calibration must be an array for each of the {len(inputs)} inputs "
            f"{[entry.name for entry in inputs]}, or a tuple that begins with them. Received: "
            f"{type(batch).__name__}"
        )
    return found


def _iterated(batches: Any) -> Iterator[Any]:
    """What `fit` would go over: a sequence of batches by their numbers, else an iterator."""
    sized = hasattr(batches, "__getitem__") and hasattr(batches, "__len__")
    if sized and not isinstance(batches, list | tuple):
        return (batches[i] for i in range(len(batches)))
    if not isinstance(batches, Iterable) or isinstance(batches, str | bytes):
        raise TypeError(
            "calibration must be an array of inputs, several of them, or batches. Received: "
            f"{type(batches).__name__}"
        )
    return iter(batches)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _array(value: Any) -> np.ndarray:
    """An array or tensor of any engine as float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float().numpy() if hasattr(value, "float") else value.numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise TypeError(f"calibration must hold numbers. Received: an array of {array.dtype}")
    return array.astype(np.float32)


def _check(entry: Input, array: np.ndarray) -> None:
    fits = array.ndim == len(entry.shape) and all(
        size in (None, actual) for size, actual in zip(entry.shape[1:], array.shape[1:], strict=True)
    )
    if not fits:
        expected = (None, *entry.shape[1:])
        raise ValueError(
            f"calibration of the input {entry.name!r} must have the shape {expected}, where None "
            f"may be any size. Received: {array.shape}"
        )
