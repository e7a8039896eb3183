"""Picks Keras' backend for the tests on models, which run on one engine at a time."""

from __future__ import annotations

import os

import pytest

ENGINES = os.environ.get("SEPCONV_TEST_ENGINES", "jax,torch,tensorflow").split(",")
os.environ.setdefault("KERAS_BACKEND", ENGINES[0])
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

keras = pytest.importorskip("keras")

BACKEND = keras.backend.backend()


def pytest_collection_modifyitems(items):
    if BACKEND in ENGINES:
        return
    skip = pytest.mark.skip(reason=f"SEPCONV_TEST_ENGINES excludes KERAS_BACKEND={BACKEND}")
    for item in items:
        if os.path.dirname(__file__) in str(item.path):
            item.add_marker(skip)


@pytest.fixture
def engine():
    return BACKEND
