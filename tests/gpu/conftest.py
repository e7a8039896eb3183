"""Finds the GPU of Keras' backend; without one these tests are skipped, and say why."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.devices import ENGINES
from helpers.selection import import_keras, selected

SELECTED = selected()
keras = import_keras()
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
