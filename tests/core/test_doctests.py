"""The examples in docstrings of modules that need no engine."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = (
    "sepconv",
    "sepconv._types",
    "sepconv.engines",
    "sepconv.engines.front",
    "sepconv.functional",
    "sepconv.fused",
    "sepconv.geometry",
    "sepconv.reference",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_every_public_function_has_an_example():
    for name in ("sepconv.functional", "sepconv.reference"):
        module = importlib.import_module(name)
        for function in module.__all__:
            assert ">>>" in getattr(module, function).__doc__, f"{name}.{function}"
