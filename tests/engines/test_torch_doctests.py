"""PyTorch: the examples in docstrings."""

from __future__ import annotations

import doctest

import sepconv.torch


def test_examples():
    result = doctest.testmod(sepconv.torch)
    assert result.attempted > 0
    assert result.failed == 0
