"""Picks Keras' backend for the tests on models, which run on one engine at a time."""

from __future__ import annotations

import pytest
from helpers.selection import import_keras, skip_unless_selected

keras = import_keras()

from helpers import quick  # noqa: E402 - it imports Keras, whose backend is chosen now


def pytest_collection_modifyitems(items):
    skip_unless_selected(items, __file__)


@pytest.fixture(autouse=True, scope="session")
def _short_compilations():
    """Hundreds of tiny layers and models are compiled once and run once."""
    with quick.short_compilations():
        yield


@pytest.fixture
def engine():
    return keras.backend.backend()
