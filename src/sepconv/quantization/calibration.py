"""Calibration data as the arrays that a network takes, of whatever was given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sepconv.program.named import by_name
from sepconv.program.network import Input

__all__ = ["MOST_EXAMPLES", "arrays_of", "gathered"]

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
    arrays = gathered(calibration, [entry.name for entry in inputs])
    for entry, array in zip(inputs, arrays, strict=True):
        _check(entry, array)
    count = len(arrays[0])
    batch = inputs[0].shape[0]
    if batch is not None:
        if count < batch:
            raise ValueError(
                f"calibration must have at least {batch} examples, the batch that the model fixes. "
                f"Received: {count}"
            )
        arrays = [array[: count // batch * batch] for array in arrays]
    return arrays


def gathered(calibration: Any, names: Sequence[str]) -> list[np.ndarray]:
    """As `arrays_of`, for inputs whose names alone are known.

    Raises:
        TypeError: see there.
        ValueError: there are no examples, or batches do not fit each other.
    """
    arrays = _structure(calibration, names)
    if arrays is None:
        arrays = _joined(calibration, names)
    counts = [array.shape[:1] for array in arrays]
    if len(set(counts)) > 1 or not all(counts[0] or (0,)):
        raise ValueError(
            "calibration must have examples, as many for every input. Received: the shapes "
            f"{[array.shape for array in arrays]} of the inputs {list(names)}"
        )
    return [array[:MOST_EXAMPLES] for array in arrays]


def _joined(calibration: Any, names: Sequence[str]) -> list[np.ndarray]:
    """The arrays of batches."""
    parts: list[list[np.ndarray]] = []
    count = 0
    for batch in _iterated(calibration):
        parts.append(_of_batch(batch, names))
        count += len(parts[-1][0])
        if count >= MOST_EXAMPLES:
            break
    if not parts:
        raise ValueError("calibration must have examples. Received: no batch")
    found = []
    for name, arrays in zip(names, zip(*parts, strict=True), strict=True):
        if len({array.shape[1:] for array in arrays}) > 1:
            raise ValueError(
                "Batches of calibration must be of one shape, but for their first axis. Received: "
                f"{sorted({array.shape for array in arrays})} of the input {name!r}"
            )
        found.append(np.concatenate(arrays))
    return found


def _structure(given: Any, names: Sequence[str]) -> list[np.ndarray] | None:
    """The arrays of a structure of them; None where it is something else, such as batches."""
    if isinstance(given, Mapping):
        return [_array(value) for value in by_name(given, names, "calibration")]
    if _is_array(given):
        return [_array(given)] if len(names) == 1 else None
    several = isinstance(given, list | tuple) and len(names) > 1 and len(given) == len(names)
    if several and all(_is_array(each) for each in given):
        return [_array(each) for each in given]
    return None


def _of_batch(batch: Any, names: Sequence[str]) -> list[np.ndarray]:
    """A batch's inputs, which may have targets after them."""
    found = _structure(batch, names)
    if found is None and isinstance(batch, list | tuple) and batch:
        first = batch[0]
        # A batch may be of lists of numbers, as `fit` takes them, too.
        plain = len(names) == 1 and isinstance(first, list) and not any(map(_is_array, first))
        if isinstance(batch, list) and plain:
            found = [_array(batch)]
        elif len(batch) <= _MOST_PARTS:
            found = [_array(first)] if plain else _structure(first, names)
    if found is None or not all(array.ndim for array in found):
        raise TypeError(
            f"A batch of calibration must be an array for each of the inputs {list(names)}, or "
            f"a tuple that begins with them. Received: {type(batch).__name__}"
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
        # NumPy has no bfloat16. Of complex numbers PyTorch would leave out what is imaginary.
        value = value if "complex" in str(value.dtype) else value.float()
        value = value.numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise TypeError(f"calibration must hold numbers. Received: an array of {array.dtype}")
    return array.astype(np.float32)


def _check(entry: Input, array: np.ndarray) -> None:
    fits = array.ndim == len(entry.shape) and all(
        size in (None, actual)
        for size, actual in zip(entry.shape[1:], array.shape[1:], strict=True)
    )
    if not fits:
        expected = (None, *entry.shape[1:])
        raise ValueError(
            f"calibration of the input {entry.name!r} must have the shape {expected}, where None "
            f"may be any size. Received: {array.shape}"
        )
