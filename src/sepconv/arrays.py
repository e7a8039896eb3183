"""NumPy arrays as the kernels take them: dense, aligned, of a dtype that they know."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import numpy as np

__all__ = ["DTYPES", "as_array", "dtype_code", "empty", "output_array"]

#: The names of the dtypes that kernels take, with the numbers they know them by. What is stored in
#: the half types is computed in float32.
DTYPES: Final[Mapping[str, int]] = MappingProxyType(
    {"float32": 0, "float64": 1, "bfloat16": 2, "float16": 3}
)

_FLOAT32 = np.dtype(np.float32)

_PAGE = 4096
#: Bytes of which an array lies where the system puts whole pages, and not among small ones.
_LARGE = 1 << 16


@lru_cache(maxsize=64)
def dtype_code(dtype: np.dtype) -> int:
    """The number that kernels know a dtype by, which must be one that `as_array` returns."""
    return DTYPES[dtype.name]


@lru_cache(maxsize=64)
def _native_dtype(dtype: np.dtype) -> np.dtype | None:
    """A dtype in this machine's byte order; None where kernels do not take it.

    The name tells, since NumPy has bfloat16 from other packages only.
    """
    return dtype.newbyteorder("=") if dtype.name in DTYPES else None


def as_array(name: str, value: Any, dtype: np.dtype | None = None) -> np.ndarray:
    """`value` as a C-contiguous array in native byte order.

    Args:
        name: what messages call it.
        value: a NumPy array, anything with DLPack on the CPU, or nested lists.
        dtype: the dtype that it must have; any of `DTYPES` where None.

    Raises:
        TypeError: it has another dtype.
    """
    # The usual case in one test: what is left of a small call is the time spent here.
    if value.__class__ is np.ndarray and value.dtype is (dtype or _FLOAT32) and value.flags.carray:
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
    """As ``np.empty``, at a multiple of 64 bytes where it is of any size.

    NumPy's own arrays begin at multiples of 16, where most of the vectors of a kernel for AVX-512
    lie across two cache lines: half as fast where memory is the limit.

    Args:
        shape: as for ``np.empty``.
        dtype: see there.
        beside: what is read while this is written. Large arrays begin at the same place of a page,
            and processors take a load for one of what was just stored where addresses agree in
            their last 12 bits: so this one begins a quarter of a page further on.
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
    """`out`, or a new array of the dtype of `x`, which is read for it, where it is None.

    That it shares no memory with an input is for the module `_native` to see.

    Raises:
        TypeError: `out` is no NumPy array.
        ValueError: it does not fit.
    """
    dtype = x.dtype
    if out is None:
        return empty(shape, dtype, x)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array. Received: {type(out).__name__}")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(
            f"out must have the shape {shape} and the dtype {dtype}. "
            f"Received: out.shape={out.shape}, out.dtype={out.dtype}"
        )
    if not out.flags.carray:  # which is all three
        raise ValueError("out must be C-contiguous, aligned and writable.")
    return out
