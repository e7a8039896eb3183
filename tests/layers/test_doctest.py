"""The examples in the layers' docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from sepconv import layers

MODULES = [
    "sepconv.layers",
    *(f"sepconv.layers.{m.name}" for m in pkgutil.iter_modules(layers.__path__)),
]


@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_every_layer_has_an_example():
    finder = doctest.DocTestFinder()
    for name in ("SeparableConv2D", "DepthwiseConv2D", "SeparableConv1D", "DepthwiseConv1D"):
        assert any(test.examples for test in finder.find(getattr(layers, name)))
