"""The reference itself, against plain loops and finite differences on tiny shapes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers.configurations import configurations

from sepconv import reference


def _loops(x, kernel, strides, pads, dilation_rate):
    """The definition, a multiplication at a time, for channels_last."""
    n, h, w, channels = x.shape
    kh, kw, _, multiplier = kernel.shape
    sizes = [
        (size + sum(pad) - (k - 1) * d - 1) // s + 1
        for size, pad, k, d, s in zip((h, w), pads, (kh, kw), dilation_rate, strides, strict=True)
    ]
    y = np.zeros((n, *sizes, channels * multiplier))
    for b, p, q, c, m, i, j in itertools.product(
        range(n), *map(range, sizes), *map(range, (channels, multiplier, kh, kw))
    ):
        row = p * strides[0] + i * dilation_rate[0] - pads[0][0]
        column = q * strides[1] + j * dilation_rate[1] - pads[1][0]
        if 0 <= row < h and 0 <= column < w:
            y[b, p, q, c * multiplier + m] += x[b, row, column, c] * kernel[i, j, c, m]
    return y


def _tiny(count, seed):
    return configurations(
        count, seed, channels=(1, 2, 3), filters=(1, 3), largest=4, dtypes=("float64",)
    )


def _explicit(c):
    """The padding as pairs: 'same' as TensorFlow's documentation states it."""
    if c.padding == "valid":
        return ((0, 0), (0, 0))
    if c.padding != "same":
        return c.padding
    pads = []
    for size, k, s, d in zip(c.size, c.kernel, c.strides, c.dilation_rate, strict=True):
        reach = (k - 1) * d + 1
        total = max(reach - s, 0) if size % s == 0 else max(reach - size % s, 0)
        pads.append((total // 2, total - total // 2))
    return tuple(pads)


@pytest.mark.parametrize("chunk", range(4))
def test_values_are_those_of_plain_loops(chunk):
    for c in _tiny(10, chunk):
        arrays = c.arrays()
        x = arrays["x"]
        first = c.data_format == "channels_first"
        last = x.transpose(0, 2, 3, 1) if first else x
        expected = _loops(
            last, arrays["depthwise_kernel"], c.strides, _explicit(c), c.dilation_rate
        )
        if c.filters is not None:
            expected = np.einsum("npqc,cf->npqf", expected, arrays["pointwise_kernel"][0, 0])
        if c.bias:
            expected = expected + arrays["bias"]
        if c.activation is not None:
            expected = np.clip(expected, 0, 6 if c.activation == "relu6" else None)
        expected = expected.transpose(0, 3, 1, 2) if first else expected
        call = reference.depthwise_conv2d if c.filters is None else reference.separable_conv2d
        y = call(*arrays.values(), activation=c.activation, **c.options)
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12, err_msg=str(c))


@pytest.mark.parametrize("chunk", range(4))
def test_gradients_are_finite_differences(chunk):
    step = 1e-3
    for c in _tiny(6, 50 + chunk):
        arrays = c.arrays()
        kind = "depthwise" if c.filters is None else "separable"
        call = getattr(reference, f"{kind}_conv2d")
        dy = c.gradient(call(*arrays.values(), **c.options).shape)
        kernels = [a for name, a in arrays.items() if name != "bias"]
        grads = getattr(reference, f"{kind}_conv2d_grad")(*kernels, dy, **c.options)._asdict()
        for name, array in arrays.items():
            numeric = np.zeros_like(array)
            for index in np.ndindex(array.shape):
                ends = []
                for sign in (1, -1):
                    moved = array.copy()
                    moved[index] += sign * step
                    y = call(*(arrays | {name: moved}).values(), **c.options)
                    ends.append((y * dy).sum())
                numeric[index] = (ends[0] - ends[1]) / (2 * step)
            # The result is linear in each argument, so the difference is exact but for rounding.
            np.testing.assert_allclose(grads[name], numeric, rtol=1e-8, atol=1e-8)
