"""The examples in docstrings that need Keras or its engine run, and every public name has one."""

from __future__ import annotations

import keras
import pytest
from helpers import docstrings

import sepconv
from sepconv import layers

NEEDED = ("keras", keras.backend.backend())


@pytest.mark.parametrize("name", [n for n, needs in docstrings.MODULES.items() if needs in NEEDED])
def test_examples(name):
    docstrings.run(name)


def test_every_layer_and_every_function_on_models_has_an_example():
    public = [getattr(layers, name) for name in layers.__all__]
    public += [getattr(sepconv, name) for name in sepconv._MODELS]
    assert len(public) > 10
    for each in public:
        assert ">>>" in each.__doc__, each.__name__
