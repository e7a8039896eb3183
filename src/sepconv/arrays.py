"""Converts arrays for the kernels: dense, aligned, of a dtype that they take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import numpy as np

__all__ = ["DTYPES", "as_array", "dtype_code", "empty", "output_array"]

#: The dtypes that kernels take, by name, with their numbers in C++. The half types are computed in
#: float32.
DTYPES: Final[Mapping[str, int]] = MappingProxyType(
    {"float32": 0, "float64": 1, "bfloat16": 2, "float16": 3}
)

#: Dtypes that need no conversion: those met so far. A set answers faster than names do.
_as_they_are: set[np.dtype] = set()

_PAGE = 4096
#: Bytes from which on an array gets whole pages of its own from the system.
_LARGE = 1 << 16


@lru_cache(maxsize=64)
def dtype_code(dtype: np.dtype) -> int:
    """The number of a dtype in C++. It must be one that `as_array` returns."""
    return DTYPES[dtype.name]


@lru_cache(maxsize=64)
def _native_dtype(dtype: np.dtype) -> np.dtype | None:
    """A dtype in this machine's byte order; None where kernels do not take it.

    It is found by name, since bfloat16 comes from packages other than NumPy.
    """
    return dtype.newbyteorder("=") if dtype.name in DTYPES else None


def as_array(name: str, value: Any, dtype: np.dtype | None = None) -> np.ndarray:
    """`value` as a C-contiguous array in native byte order.

    Args:
        name: its name in messages.
        value: a NumPy array, anything with DLPack on the CPU, or nested lists.
        dtype: the dtype that it must have; any of `DTYPES` where None.

    Raises:
        TypeError: it has another dtype.
    """
    # The usual case in one test, since this takes most of the time of a small call.
    if value.__class__ is np.ndarray and value.flags.carray:
        found = value.dtype
        if found is dtype or (dtype is None and found in _as_they_are):
            return value
    if isinstance(value, np.ndarray):
        array = value
    elif hasattr(value, "__dlpack__"):
        array = np.from_dlpack(value)
    else:
        array = np.asarray(value, dtype)
    native = _native_dtype(array.dtype)
    if native is None:
        raise TypeError(
            f"{name} must be float32, float64, float16 or bfloat16. "
            f"Received: {name}.dtype={array.dtype}; convert it with {name}.astype('float32')."
        )
    if array.dtype != native:
        array = array.astype(native)
    else:
        _as_they_are.add(native)
    if dtype is not None and array.dtype != dtype:
        raise TypeError(
            f"{name} must have the dtype of the first argument, {dtype}. "
            f"Received: {name}.dtype={array.dtype}"
        )
    if not array.flags.c_contiguous or not array.flags.aligned:
        array = np.array(array, order="C")
    return array


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def empty(
    shape: tuple[int, ...], dtype: np.dtype | type, beside: np.ndarray | None = None
) -> np.ndarray:
    """As ``np.empty``, but large arrays are aligned to 64 bytes.

    NumPy's own arrays are aligned to 16 bytes. Most vectors of an AVX-512 kernel then cross two
    cache lines, which is half as fast where memory is the limit.

    Args:
        shape: as for ``np.empty``.
        dtype: see there.
        beside: an array that is read while this one is written, or None. If both began at the same
            offset of a page, processors would take loads of one for loads of what was just stored
            to the other, since they compare the last 12 bits of addresses. So the new array begins
            a quarter of a page further on.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < 4096:
        return np.empty(shape, dtype)
    if beside is None or size < _LARGE:
        memory = np.empty(size + 64, np.uint8)
        start = -_address(memory) % 64
    else:
        memory = np.empty(size + _PAGE, np.uint8)
        start = (_address(beside) // 64 * 64 + _PAGE // 4 - _address(memory)) % _PAGE
    return memory[start : start + size].view(dtype).reshape(shape)


def output_array(out: np.ndarray | None, shape: tuple[int, ...], x: np.ndarray) -> np.ndarray:
    """`out`, or where it is None a new array of the dtype of `x`, which is read for the result.

    The module `_native` checks that it shares no memory with an input.

    Raises:
        TypeError: `out` is no NumPy array.
        ValueError: it does not fit.
    """
    dtype = x.dtype
    if out is None:
        return empty(shape, dtype, x)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array. Received: {type(out).__name__}")
    if out.shape != shape or (out.dtype is not dtype and out.dtype != dtype):
        raise ValueError(
            f"out must have the shape {shape} and the dtype {dtype}. "
            f"Received: out.shape={out.shape}, out.dtype={out.dtype}"
        )
    if not out.flags.carray:  # C-contiguous, aligned and writable
        raise ValueError("out must be C-contiguous, aligned and writable.")
    return out
