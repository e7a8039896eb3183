"""The examples in the docstrings of functions on models run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from sepconv import models

MODULES = [f"sepconv.models.{m.name}" for m in pkgutil.iter_modules(models.__path__)]


@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0
