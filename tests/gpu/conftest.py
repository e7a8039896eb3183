"""Finds the GPU of Keras' backend; without one these tests are skipped, and say why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SELECTED = os.environ.get("SEPCONV_TEST_ENGINES", "jax,torch,tensorflow").split(",")
os.environ.setdefault("KERAS_BACKEND", SELECTED[0] or "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

pytest.importorskip("keras")

import keras  # noqa: E402
from helpers.devices import ENGINES  # noqa: E402

BACKEND = keras.backend.backend()
DEVICE = ENGINES[BACKEND]() if BACKEND in ENGINES and BACKEND in SELECTED else None


def pytest_collection_modifyitems(items):
    reason = f"KERAS_BACKEND={BACKEND} is not among the engines to test, {SELECTED}"
    if DEVICE is not None:
        reason = DEVICE.missing
    if reason is None:
        return
    hint = "; SEPCONV_GPU_TESTS=cpu runs these tests on the CPU"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason + hint))


@pytest.fixture
def device():
    """Where to compute; see `devices`."""
    return DEVICE
