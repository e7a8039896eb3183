"""Which engines are tested: those that SEPCONV_TEST_ENGINES names, between commas, or all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ENGINES = ("jax", "torch", "tensorflow")


def selected():
    """The engines that are tested, in the order in which they were named."""
    text = os.environ.get("SEPCONV_TEST_ENGINES", ",".join(ENGINES))
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = sorted(set(names) - set(ENGINES))
    if unknown:
        raise pytest.UsageError(
            f"SEPCONV_TEST_ENGINES must be among {ENGINES}. Received: {unknown}"
        )
    return names


def import_keras():
    """Keras, on the first engine that is tested unless KERAS_BACKEND says otherwise."""
    for name in selected()[:1]:
        os.environ.setdefault("KERAS_BACKEND", name)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return pytest.importorskip("keras")


def keras_backend_is_selected():
    """Whether the backend that Keras runs on is one of the engines that are tested."""
    import keras

    return keras.backend.backend() in selected()


def skip_unless_selected(items, conftest):
    """Skips the tests in the folder of a conftest.py where Keras' backend is not to be tested."""
    if keras_backend_is_selected():
        return
    skip = pytest.mark.skip(reason="SEPCONV_TEST_ENGINES leaves Keras' backend out")
    for item in items:
        if Path(conftest).parent in item.path.parents:
            item.add_marker(skip)
