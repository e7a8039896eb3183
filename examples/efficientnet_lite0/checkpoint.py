"""Reads the tensors of a PyTorch checkpoint without PyTorch, and without running what is in it.

A checkpoint is a pickle, and a pickle can make its reader call any function. This reader knows the
four names that a dictionary of tensors needs, gives each its own meaning, and refuses every other;
it imports nothing that a file names.

It reads the format that `torch.save` wrote before PyTorch 1.6: five pickles (a magic number, the
version, the writer's machine, the dictionary, and the keys of the storages), then each storage's
length and its numbers. A tensor is a view of a storage, with an offset and strides of its own.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

__all__ = ["CheckpointError", "read"]

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001

#: A checkpoint's names for kinds of storages, with their (little-endian) types of numbers.
_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}


class CheckpointError(ValueError):
    """The file is not a checkpoint of tensors alone, or is damaged."""


class _Storage(NamedTuple):
    """The numbers that tensors share; they come later in the file."""

    key: str
    dtype: np.dtype[Any]
    size: int


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Reader(pickle.Unpickler):
    """Understands dictionaries, numbers, text and tensors."""

    def find_class(self, module: str, name: str) -> Any:
        """The object that a name in the file stands for."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        raise CheckpointError(f"it asks for {module}.{name}, which no tensor needs; not read")

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage, which the file describes as ("storage", kind, key, device, size, view)."""
        kind, dtype, key, _, size, view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or view is not None:
            raise CheckpointError(f"it describes a storage as {pid!r}")
        return _Storage(key, dtype, size)


def _numbers(file: BinaryIO, storages: dict[str, _Storage], keys: list[str]) -> dict[str, Any]:
    """The storages' numbers, in the order of `keys`."""
    found = {}
    for key in keys:
        storage = storages[key]
        size = int.from_bytes(file.read(8), "little")
        data = file.read(size * storage.dtype.itemsize)
        if size != storage.size or len(data) != size * storage.dtype.itemsize:
            raise CheckpointError(f"storage {key} should have {storage.size} numbers")
        found[key] = np.frombuffer(data, storage.dtype)
    return found


def _array(tensor: _Tensor, numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A tensor as a contiguous array. Its strides matter: most here are not in the usual order."""
    if len(tensor.shape) != len(tensor.strides) or min((*tensor.shape, *tensor.strides, 0)) < 0:
        raise CheckpointError(f"a tensor has the shape {tensor.shape}, strides {tensor.strides}")
    reach = [(n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True)]
    empty = math.prod(tensor.shape) == 0
    if tensor.offset < 0 or (not empty and tensor.offset + sum(reach) >= len(numbers)):
        raise CheckpointError(f"a tensor of the shape {tensor.shape} lies outside of its storage")
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides)
    return np.ascontiguousarray(view).reshape(tensor.shape)


def read(path: str | Path) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors in a checkpoint.

    Args:
        path: a file that `torch.save` wrote from a dictionary of tensors before PyTorch 1.6.

    Returns:
        From their names to arrays.

    Raises:
        CheckpointError: the file is of another kind, is damaged, or contains anything but tensors.
    """
    file = io.BytesIO(Path(path).read_bytes())
    try:
        magic, version, _, tensors = (_Reader(file).load() for _ in range(4))
        keys = _Reader(file).load()
        if (magic, version) != (_MAGIC, _VERSION):
            raise CheckpointError("it does not begin as a checkpoint does")
        storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        numbers = _numbers(file, storages, keys)
        return {
            name: _array(tensor, numbers[tensor.storage.key]) for name, tensor in tensors.items()
        }
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    # A damaged pickle may raise any of these.
    except (
        pickle.UnpicklingError, EOFError, ImportError, IndexError, AttributeError,
        KeyError, TypeError, ValueError, OverflowError, MemoryError,
    ) as error:  # fmt: skip
        raise CheckpointError(f"{path} is not a checkpoint of tensors: {error}") from error
