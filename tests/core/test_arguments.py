"""Sizes and padding become integers; what is not one of their forms is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from sepconv.arguments import explicit_padding, integers, positive_sizes


def test_integers_are_of_any_size_and_number():
    assert integers("strides", np.int64(-3), 2) == (-3, -3)
    assert integers("strides", [0, 1, 2], 2) == (0, 1, 2)
    for wrong in (2.0, "2", None, (1, 2.0)):
        with pytest.raises(TypeError, match="strides must consist of integers"):
            integers("strides", wrong, 2)


def test_sizes_are_positive_and_one_an_axis():
    assert positive_sizes("strides", np.int32(2), 2) == (2, 2)
    assert positive_sizes("strides", [3], 1) == (3,)
    for wrong in (0, (1, -1), 2**62, (1,), (1, 2, 3)):
        with pytest.raises(ValueError, match=r"strides .*Received: strides="):
            positive_sizes("strides", wrong, 2)


def test_padding_of_one_axis_may_be_one_pair():
    assert explicit_padding(((0, 1), (2, np.int64(3))), 2) == (0, 1, 2, 3)
    assert explicit_padding((1, 2), 1) == explicit_padding(((1, 2),), 1) == (1, 2)
    with pytest.raises(ValueError, match=r"'same' or \(\(top, bottom\), \(left, right\)\) with"):
        explicit_padding((1, 2), 2)
    with pytest.raises(ValueError, match=r"'same', 'causal' or \(left, right\) with integers"):
        explicit_padding((1, -2), 1)
    with pytest.raises(TypeError, match="padding must consist of integers"):
        explicit_padding((1, 2.0), 1)
