"""The gradient of a 1x1 kernel: also where it is computed as that of the kernel transposed."""

from __future__ import annotations

import numpy as np
import pytest

from sepconv import _native
from sepconv.arrays import DTYPES

#: Channels, filters and pixels on both sides of where channels and filters are exchanged.
SIZES = [(31, 16, 512), (32, 16, 511), (32, 16, 512), (77, 3, 700), (130, 64, 1024), (9, 1, 600)]


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize(("channels", "filters", "pixels"), SIZES)
def test_channels_last(name, channels, filters, pixels):
    random = np.random.default_rng(0)
    unit = float(np.finfo(name).eps) if name == "float16" else 0.0
    if name == "bfloat16":
        ml_dtypes = pytest.importorskip("ml_dtypes")  # which comes with the engines
        dtype, unit = ml_dtypes.bfloat16, float(ml_dtypes.finfo("bfloat16").eps)
    else:
        dtype = np.dtype(name)
    x = random.standard_normal((pixels, channels)).astype(dtype)
    dy = random.standard_normal((pixels, filters)).astype(dtype)
    kernel = np.empty((channels, filters), dtype)
    addresses = (None if a is None else a.ctypes.data for a in (x, None, dy, None, kernel, None))
    _native.pointwise_backward(1, pixels, channels, filters, False, DTYPES[name], *addresses)
    exact = x.astype("float64").T @ dy.astype("float64")
    sums = np.finfo("float64" if name == "float64" else "float32").eps * pixels
    np.testing.assert_allclose(kernel.astype("float64"), exact, rtol=unit, atol=sums)
