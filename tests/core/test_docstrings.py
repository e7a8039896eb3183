"""The examples in docstrings that need no engine run, and every public name has one."""

from __future__ import annotations

import pytest
from helpers import docstrings

import sepconv

#: What is plain enough without: tuples of gradients, and what says or sets one number.
WITHOUT = {"isa_name", "num_threads", "set_num_threads", "reference", "__version__"}


@pytest.mark.parametrize("name", [n for n, needs in docstrings.MODULES.items() if needs is None])
def test_examples(name):
    docstrings.run(name)


@pytest.mark.parametrize("module", [sepconv, sepconv.reference], ids=lambda m: m.__name__)
def test_every_public_function_has_an_example(module):
    for name in set(module.__all__) - WITHOUT:
        if not name.endswith("Grads"):
            assert ">>>" in getattr(module, name).__doc__, name
