"""NumPy arrays as the kernels take them: dense, aligned, of a dtype that they know."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["DTYPES", "as_array", "empty", "output_array"]

#: The dtypes that kernels know, with the numbers they know them by; `as_array` adds bfloat16, which
#: NumPy has from a package only.
DTYPES = {np.dtype(np.float32): 0, np.dtype(np.float64): 1, np.dtype(np.float16): 3}

_FLOAT32 = np.dtype(np.float32)


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
    if array.dtype not in DTYPES:
        native = array.dtype.newbyteorder("=")
        if native.name == "bfloat16":
            DTYPES[native] = 2
        elif native not in DTYPES:
            raise TypeError(
                f"{name} must be float32, float64, float16 or bfloat16. "
                f"Received: {name}.dtype={array.dtype}; convert it with {name}.astype('float32')."
            )
        array = array.astype(native, copy=False)
    if dtype is not None and array.dtype != dtype:
        raise TypeError(
            f"{name} must have the dtype of the first argument, {dtype}. "
            f"Received: {name}.dtype={array.dtype}"
        )
    if not array.flags.c_contiguous or not array.flags.aligned:
        array = np.array(array, order="C")
    return array


def empty(shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """As ``np.empty``, at a multiple of 64 bytes where it is of any size.

    NumPy's own arrays begin at multiples of 16, where most of the vectors of a kernel for AVX-512
    lie across two cache lines: half as fast where memory is the limit.
    """
    itemsize = np.dtype(dtype).itemsize
    size = math.prod(shape) * itemsize
    if size < 4096:
        return np.empty(shape, dtype)
    memory = np.empty(size + 64, np.uint8)
    start = -memory.__array_interface__["data"][0] % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def output_array(out: np.ndarray | None, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """`out`, or a new array where it is None.

    That it shares no memory with an input is for the module `_native` to see.

    Raises:
        TypeError: `out` is no NumPy array.
        ValueError: it does not fit.
    """
    if out is None:
        return empty(shape, dtype)
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
