"""Picks Keras' backend for the tests on models, which run on one engine at a time."""

from __future__ import annotations

import pytest
from selection import import_keras, skip_unless_selected

keras = import_keras()


def pytest_collection_modifyitems(items):
    skip_unless_selected(items, __file__)


@pytest.fixture
def engine():
    return keras.backend.backend()
